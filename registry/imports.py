"""Code that is tried in a process of its own: a broken binary can end the interpreter that imports it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

SECONDS = 180.0  # that an import may take (our choice: a cold disk, a busy machine)
RAN = "mdpd: ran statement "

IN_TURN = """
for number, statement in enumerate({statements!r}):
    try:
        exec(statement, {{"__name__": "__main__"}})
    except BaseException:
        continue
    print("\\n" + {ran!r} + str(number), flush=True)
"""


def begin(code: str) -> subprocess.Popen[str]:
    """Run Python code in another process. Several run beside each other; `ended` waits for one."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str | None]:
    """Wait for a process of `begin`.

    Returns:
        What it printed, and what went wrong: the last line of its errors, or how it ended; None where nothing did.
    """
    try:
        printed, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "", f"no answer within {SECONDS:.0f} s"
    if process.returncode == 0:
        return printed, None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printed, lines[-1] if lines else f"the interpreter ended with status {process.returncode}"


def failures(statements: Sequence[str]) -> list[str | None]:
    """How import statements end: None for one that ran, else what went wrong as of `ended`.

    They run in one process, one after another: frameworks share most of what they import, and torch alone takes
    seconds. What did not run there may have been spoilt by another statement, so it runs again in a process of its own.
    """
    if not statements:
        return []
    printed, _ = ended(begin(IN_TURN.format(statements=list(statements), ran=RAN)))
    lines = set(printed.splitlines())
    alone = {number: begin(statement) for number, statement in enumerate(statements) if f"{RAN}{number}" not in lines}
    return [ended(alone[number])[1] if number in alone else None for number in range(len(statements))]


__all__ = ["begin", "ended", "failures"]
