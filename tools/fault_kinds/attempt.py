"""One attempt: something is done to the project, and how that ended."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mdpd_plugins.registry.errors import MDPDError

RIGHT, REFUSED = "right", "refused"
# What must not happen.
OTHER, UNNAMED, TRACEBACK, HANG = "another answer", "refused without a name", "traceback", "hang"
HALF, CRASH, OUTSIDE = "half-written", "crash", "written outside"
OUTCOMES = (RIGHT, REFUSED, OTHER, UNNAMED, TRACEBACK, HANG, HALF, CRASH, OUTSIDE)
GOOD = (RIGHT, REFUSED)
SECONDS = 120  # after which an attempt hangs


@dataclass(frozen=True)
class Case:
    """What was tried and how it ended.

    Attributes:
        subject: what it was tried on. number: tells it from other cases of the kind; it is also the seed.
        what: the fault, in a few words. outcome: one of OUTCOMES. said: of what must not happen, what could be seen.
    """

    subject: str
    number: int
    what: str
    outcome: str
    said: str = ""


class _Hangs(BaseException):
    pass


@dataclass(frozen=True)
class Ended:
    """How a call ended: its outcome, what it returned, and what it said."""

    outcome: str
    value: Any
    said: str


def attempt(function: Callable[[], Any], seconds: int = SECONDS) -> Ended:
    """Call a function in this process, without its output on the screen.

    RIGHT: it returned. REFUSED: it returned 2, as a command does, or raised an `MDPDError`. TRACEBACK: it raised
    anything else. HANG: it had not ended after so many seconds.
    """
    said = io.StringIO()

    def ring(*_: Any) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.alarm(seconds)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            value = function()
    except MDPDError as error:
        return Ended(REFUSED, None, str(error))
    except _Hangs:
        return Ended(HANG, None, f"no end after {seconds} s")
    except SystemExit as error:
        return Ended(REFUSED if error.code == 2 else CRASH, None, said.getvalue() or str(error))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Ended(TRACEBACK, None, f"{type(error).__name__}: {error}"[:400])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Ended(REFUSED if value == 2 and not isinstance(value, bool) else RIGHT, value, said.getvalue())


def numbered(numbers: range, kind: str) -> Iterator[tuple[int, random.Random]]:
    """Each number with random numbers of its own."""
    for number in numbers:
        yield number, random.Random(f"{kind} {number}")


@contextlib.contextmanager
def quiet_descriptors() -> Iterator[None]:
    """Inside, what libraries written in C or other processes print goes nowhere."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for file in (*kept, nowhere):
            os.close(file)
