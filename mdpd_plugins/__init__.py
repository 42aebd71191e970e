"""MDPD plugins: Masked Dual Path Distillation for the backbones of any model zoo.

Importing this package loads nothing else. Start from `mdpd_plugins.registry` (what exists),
`mdpd_plugins.adapters` (one backbone) or the command `mdpd`.
"""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Reading the installed metadata takes longer than importing the package, so it waits until asked for.
    if name == "__version__":
        from importlib.metadata import version

        return version("mdpd-plugins")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
