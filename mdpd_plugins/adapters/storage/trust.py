"""Whether Python code that lies in a model's folder may run: never, unless whoever loads the folder said so.

The zoos run such code under a setting of theirs, take the setting from files of the folder, or ask on standard input.
Here they are told each time, and nobody answers them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mdpd_plugins.registry.errors import CheckpointError

FLAG = "--trust-remote-code"
SETTING = "trust_remote_code"  # what every library calls it that has such a setting
_trusted: ContextVar[bool] = ContextVar("remote_code_trusted", default=False)


def remote_code_trusted() -> bool:
    """Whether code of the folder that is being loaded may run. A plugin's `load_export` asks this too."""
    return _trusted.get()


@contextmanager
def trusting_remote_code(trusted: bool) -> Iterator[None]:
    """Inside, `remote_code_trusted` says `trusted`."""
    token = _trusted.set(trusted)
    try:
        yield
    finally:
        _trusted.reset(token)


@contextmanager
def unattended() -> Iterator[None]:
    """Inside, who asks on standard input gets no answer: a library must not stop a command to ask."""
    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before


def refused(file: object, what: str) -> CheckpointError:
    """The error for a file that wants code to run.

    Args:
        what: how it wants that, in a phrase that follows the file's name.
    """
    return CheckpointError(
        f"{str(file)!r} {what}, and code from a model's folder is not run. If you know and trust whoever made it, load "
        f"it with {FLAG} (`mdpd predict`, `mdpd eval`), or load_export(..., {SETTING}=True)"
    )


def asks_for_trust(value: Any) -> bool:
    """Whether settings, however deep, switch code of strangers on by themselves."""
    if isinstance(value, Mapping):
        return bool(value.get(SETTING)) or any(map(asks_for_trust, value.values()))
    return isinstance(value, (list, tuple)) and any(map(asks_for_trust, value))


__all__ = ["FLAG", "SETTING", "asks_for_trust", "refused", "remote_code_trusted", "trusting_remote_code", "unattended"]
