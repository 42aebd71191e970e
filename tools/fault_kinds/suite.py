"""Faults that tests try: their results, test by test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tools.fault_kinds.attempt import CRASH, RIGHT, TRACEBACK, Case

ROOT = Path(__file__).parents[2]
# What is tried -> where.
SUBJECTS = {
    "SIGTERM and Ctrl-C": ["tests/training/test_interrupts.py"],
    "full disk, read-only folder, too little memory": [
        "tests/training/test_shortages.py",
        "tests/engine/test_feature_cache.py",
    ],
    "numbers that are not finite": ["tests/training/test_nonfinite.py", "tests/engine/test_two_paths.py"],
    "growth over 500 steps and 100 models": ["tests/engine/test_growth.py"],
    "two at once": [
        "tests/training/test_lock.py",
        "tests/tools/compare/test_sweep_ends.py",
        "tests/zoos/test_listings.py",
    ],
    "code in folders of others": ["tests/exports/test_foreign_code.py"],
    "network and privacy": ["tests/exports/test_privacy.py"],
}


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Each test of `SUBJECTS` that is not left out on this machine."""
    number = 0
    for subject, files in SUBJECTS.items():
        report = folder / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not report.is_file():
            yield Case(subject, number, "all tests", CRASH, (done.stdout + done.stderr)[-300:])
            number += 1
            continue
        for test in ElementTree.parse(report).getroot().iter("testcase"):
            found = {part.tag: part for part in test}
            if "skipped" in found:
                continue
            wrong = found.get("failure", found.get("error"))
            outcome, said = (RIGHT, "") if wrong is None else (TRACEBACK, wrong.get("message", "")[:300])
            if number in numbers:
                yield Case(subject, number, test.get("name", ""), outcome, said)
            number += 1
        report.unlink()


__all__ = ["SUBJECTS", "cases"]
