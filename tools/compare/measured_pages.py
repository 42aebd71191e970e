"""Pages whose measured part is written by a command, between two marks, and whose prose around it stays."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.files import write_text
from mdpd_plugins.registry.errors import ConfigError

END = "<!-- end of measured -->"


def start_mark(tool: str) -> str:
    """The line that a page has where the part of `tool` begins."""
    return f"<!-- measured: written by {tool} -->"


def check_marks(page: Path, tool: str) -> None:
    """Raise ConfigError unless `page` has both marks, in order."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if END not in text.partition(start_mark(tool))[2]:
        raise ConfigError(f"{page} has no lines {start_mark(tool)!r} and {END!r} to write between")


def write_measured(page: Path, tool: str, body: str) -> None:
    """Put `body` between the marks of a page.

    Raises:
        ConfigError: the page has no such marks.
    """
    check_marks(page, tool)
    before, mark, rest = page.read_text(encoding="utf-8").partition(start_mark(tool))
    after = rest.partition(END)[2]
    write_text(page, f"{before}{mark}\n\n{body}\n\n{END}{after}")


__all__ = ["END", "check_marks", "start_mark", "write_measured"]
