"""Kills of sweeps: SIGKILL while one of its runs is made, and the same command again.

The lines end equal to those of a sweep that nobody touched, apart from times.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from running import write_config

from tools.compare.result_lines import read_runs
from tools.fault_kinds.attempt import CRASH, HALF, HANG, OTHER, RIGHT, SECONDS, Case

ROOT = Path(__file__).parents[2]
METHODS = ("norm", "mdpd_coach")


class UntouchedSweep(NamedTuple):
    """A sweep that nobody kills, over two methods, one of them with a coach.

    Attributes:
        lines: what it wrote, without times. seconds: from the first run's begin to the end.
    """

    config: Path
    lines: list[dict[str, Any]]
    seconds: float


def untouched_sweep(folder: Path, zoo: str) -> UntouchedSweep:
    """Make one."""
    config = write_config(folder, zoo, train={"max_steps": 4, "keep": "best"}, coach={"max_epochs": 2})
    process = _started(config, folder / "whole.jsonl")
    begun = time.monotonic()
    assert process.wait(SECONDS) == 0, (folder / "whole.jsonl.log").read_text()[-2000:]
    return UntouchedSweep(config, _lines(folder / "whole.jsonl"), time.monotonic() - begun)


def sweep_kills(subject: str, numbers: range, untouched: UntouchedSweep, rng: random.Random) -> Iterator[Case]:
    """A case for each number: a kill of a sweep, and at last the sweep to its end."""
    out = untouched.config.with_name("killed.jsonl")
    begun: list[tuple[int, str]] = []
    out.unlink(missing_ok=True)
    for number in numbers:
        while True:
            left = 1 - len(_lines(out)) / len(untouched.lines)
            process = _started(untouched.config, out)
            status = _waited(process, rng.uniform(0, left) * untouched.seconds)
            if status is None:
                break
            # It had ended already, so nothing was killed, and another sweep begins.
            yield from _ended(subject, begun, status, out, untouched)
            begun = []
            out.unlink()
        process.kill()
        process.wait()
        begun.append((number, f"with {len(_lines(out))} of {len(untouched.lines)} lines"))
    yield from _ended(subject, begun, _waited(_started(untouched.config, out), SECONDS, kill=True), out, untouched)


def _started(config: Path, out: Path) -> subprocess.Popen:
    """The command, with its imports behind it."""
    arguments = [config, "--methods", *METHODS, "--seeds", "0", "--split", "val", "--out", out]
    command = [sys.executable, "-m", "tools.compare", "sweep", *map(str, arguments)]
    for claim in out.parent.glob(".*.claim"):  # a kill leaves it, and the next sweep takes it
        claim.unlink()
    with Path(f"{out}.log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    while not list(out.parent.glob(".*.claim")) and process.poll() is None:
        time.sleep(0.01)
    return process


def _waited(process: subprocess.Popen, seconds: float, *, kill: bool = False) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        if kill:
            process.kill()
            process.wait()
        return None


def _ended(
    subject: str, begun: list[tuple[int, str]], status: int | None, out: Path, untouched: UntouchedSweep
) -> Iterator[Case]:
    """A case for each kill of a sweep that then came to its end, or did not (None)."""
    outcome, said = RIGHT, ""
    if status is None:
        outcome, said = HANG, "the same command again"
    elif status != 0:
        outcome, said = CRASH, Path(f"{out}.log").read_text(errors="replace")[-400:]
    elif not out.read_bytes().endswith(b"\n"):
        outcome, said = HALF, "the last line"
    elif (found := _lines(out)) != untouched.lines:
        outcome, said = OTHER, json.dumps(found)[:400]
    yield from (Case(subject, number, moment, outcome, said) for number, moment in begun)


def _lines(out: Path) -> list[dict[str, Any]]:
    """Lines of a sweep without the times in them."""
    lines = read_runs(out)
    for line in lines:
        for times in (line, line["coach"]):
            times.pop("seconds", None)
            times.pop("cpu_seconds", None)
    return lines
