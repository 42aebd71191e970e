"""A plugin's code, run so that it costs that plugin and leaves the process as it was."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from .errors import PluginError

# What a plugin may raise. SystemExit is one of them: sys.exit() at import must not end the program. What is neither
# becomes a PluginError in `foreign_code`, unless it is the user's Ctrl-C.
PLUGIN_ERRORS = (Exception, SystemExit)
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]


@contextlib.contextmanager
def foreign_code(*, loading: bool = False) -> Iterator[None]:
    """Run a plugin's code: what it prints goes to stderr, where it cannot spoil `--json` output.

    The working folder, signal handlers, timers, warning filters and the recursion limit are afterwards what they were.
    Environment variables, threads and what is imported stay: other packages may need them.

    Args:
        loading: its module is loaded, or its hook registers what it has. Then nobody answers on standard input, a
            stream that it closes or replaces is there again, and a process that it forks does not go on as this one.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(_folder_back, _folder())
        undo.callback(sys.setrecursionlimit, sys.getrecursionlimit())
        undo.enter_context(warnings.catch_warnings())
        interrupted = undo.enter_context(_signals()) if threading.current_thread() is threading.main_thread() else None
        undo.enter_context(_streams() if loading else contextlib.redirect_stdout(sys.stderr))
        process = os.getpid()
        try:
            yield
        except PLUGIN_ERRORS:
            raise
        except KeyboardInterrupt as error:
            if interrupted is None or interrupted:
                raise
            raise PluginError("it raised KeyboardInterrupt, and nobody pressed Ctrl-C") from error
        except BaseException as error:
            raise PluginError(f"it raised {type(error).__name__}, which is no ordinary exception") from error
        finally:
            if loading and os.getpid() != process:
                os._exit(0)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed under our feet
        return None


def _folder_back(before: str | None) -> None:
    if before is not None and _folder() != before:
        with contextlib.suppress(OSError):
            os.chdir(before)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Handlers and timers as they were; yields a list that the user's Ctrl-C is put into."""
    interrupted: list[int] = []
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    timers = {which: signal.getitimer(which) for which in _TIMERS}
    start = time.monotonic()

    def interrupt(number: int, _: Any) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        for which, (left, interval) in timers.items():
            if left or signal.getitimer(which) != (0.0, 0.0):
                # One that ran before goes on running.
                signal.setitimer(which, max(left - (time.monotonic() - start), 1e-3) if left else 0.0, interval)
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard output leads to standard error, standard input to nowhere; afterwards all three are as they were."""
    names = ("stdin", "stdout", "stderr")
    before = [(name, getattr(sys, name), getattr(sys, f"__{name}__")) for name in names]
    kept: dict[int, int] = {}
    for number in range(3):
        with contextlib.suppress(OSError):  # a process without that stream
            kept[number] = os.dup(number)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if 1 in kept and 2 in kept:
        os.dup2(2, 1)
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = _Borrowed(sys.stderr) if sys.stderr is not None else io.StringIO()
    try:
        yield
    finally:
        _flush(sys.__stdout__)  # what the plugin wrote past sys.stdout belongs to standard error, too
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        for number, (name, stream, original) in enumerate(before):
            setattr(sys, f"__{name}__", _open_again(original, number))
            setattr(sys, name, getattr(sys, f"__{name}__") if stream is original else stream)


class _Borrowed(io.TextIOBase):
    """A stream that writes into another, and does not close it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return int(self._stream.write(text) or 0)

    def flush(self) -> None:
        _flush(self._stream)

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def close(self) -> None:
        """Nothing: it was lent."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    @property
    def buffer(self) -> Any:
        return self._stream.buffer


def _flush(stream: Any) -> None:
    with contextlib.suppress(Exception):
        stream.flush()


def _open_again(stream: Any, number: int) -> Any:
    """A stream of its descriptor where it has been closed, else the stream itself."""
    if stream is None or not stream.closed:
        return stream
    try:
        return open(number, "r" if number == 0 else "w", encoding=stream.encoding, errors=stream.errors, closefd=False)
    except (OSError, ValueError):
        return stream
