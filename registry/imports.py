"""Code that is tried in a process of its own: a broken binary can end the interpreter that imports it."""

from __future__ import annotations

import subprocess
import sys

SECONDS = 180.0  # that an import may take (our choice: a cold disk, a busy machine)


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


__all__ = ["begin", "ended"]
