"""Where tables and notices are printed: as wide as the terminal, and one fixed width where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120  # columns in a file or a pipe, whatever width some terminal has


def console(**options: Any) -> Console:
    """A rich console.

    Args:
        options: `rich.console.Console`'s, such as `stderr=True` or a `file`.
    """
    from rich.console import Console

    made = Console(**options)
    if not made.is_terminal:
        made.width = WIDTH
    return made


__all__ = ["WIDTH", "console"]
