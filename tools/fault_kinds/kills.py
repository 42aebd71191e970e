"""Kills: SIGKILL at a random moment of a run, again and again, and --resume after each.

The run ends with the weights of one that nobody touched, bit for bit, and nothing half-written has a final name.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from running import run, same, start, weights, write_config

from mdpd_plugins.exports import read_record
from mdpd_plugins.files import sha256
from mdpd_plugins.registry.errors import MDPDError
from tools.fault_kinds.attempt import CRASH, HALF, HANG, OTHER, RIGHT, SECONDS, Case

SUBJECTS = ("hf-vit", "mm-vit", "oc-image")  # a zoo each
STEPS = 6
IN_A_ROW = 5  # kills of one run


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Runs of each zoo in turn, every one killed `IN_A_ROW` times."""
    known: dict[str, tuple[Path, Path, float]] = {}
    for first in range(numbers.start, numbers.stop, IN_A_ROW):
        subject = SUBJECTS[first // IN_A_ROW % len(SUBJECTS)]
        if subject not in known:
            known[subject] = _untouched(folder / subject, subject)
        config, whole, seconds = known[subject]
        rng = random.Random(f"kill {first}")
        count = min(IN_A_ROW, numbers.stop - first)
        yield from _run_of_kills(subject, first, count, config, whole, seconds, rng, folder / "killed")


def _untouched(folder: Path, subject: str) -> tuple[Path, Path, float]:
    """(config, work directory, seconds) of a run that nobody kills."""
    train = {"max_steps": STEPS, "checkpoint_every": 1, "val_every": 2, "keep": "best"}
    # Warm-up and turns of the backbone, so that the phase changes within these steps.
    distill = {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.3}
    config = write_config(folder, subject, train=train, distill=distill)
    taken = 0.0
    for name in ("warm", "run"):  # the first one pays for imports
        begun = time.monotonic()
        assert run([config, "--work-dir", folder / name], folder / "log") == 0, (folder / "log").read_text()[-2000:]
        taken = time.monotonic() - begun
    return config, folder / "run", taken


def _run_of_kills(subject, first, count, config, whole, seconds, rng, work_dir: Path) -> Iterator[Case]:
    shutil.rmtree(work_dir, ignore_errors=True)
    log = work_dir.with_name("log")
    log.unlink(missing_ok=True)
    begun: list[tuple[int, str]] = []
    for number in range(first, first + count):
        resume = ["--resume"] if list(work_dir.glob("iter_*.pth")) else []
        process = start([config, "--work-dir", work_dir, *resume], log)
        process.join(rng.uniform(0.2, 1.0) * seconds)
        moment = _moment(work_dir, log)
        process.kill()
        process.join()
        if wrong := _half_written(work_dir):
            yield Case(subject, number, moment, HALF, wrong)
            return
        begun.append((number, moment))
    resume = ["--resume"] if list(work_dir.glob("iter_*.pth")) else []
    process = start([config, "--work-dir", work_dir, *resume], log)
    process.join(SECONDS)
    outcome, said = RIGHT, ""
    if process.is_alive():
        process.kill()
        process.join()
        outcome, said = HANG, "after --resume"
    elif process.exitcode != 0:
        outcome, said = CRASH, log.read_text(errors="replace")[-400:]
    elif not _same_end(work_dir, whole):
        outcome = OTHER
    elif left := [p.name for p in work_dir.glob(".*")]:
        outcome, said = HALF, ", ".join(left)
    yield from (Case(subject, number, moment, outcome, said) for number, moment in begun)


def _moment(work_dir: Path, log: Path) -> str:
    """Roughly where a run is: what it said or wrote last."""
    if (work_dir / "summary.json").exists():
        return "at its end"
    if list(work_dir.glob(".export.*")) or (work_dir / "export").exists():
        return "while exporting"
    if list(work_dir.glob(".iter_*")) or list(work_dir.glob(".best_*")):
        return "while writing a checkpoint"
    newest = max((int(p.stem[5:]) for p in work_dir.glob("iter_*.pth")), default=0)
    lines = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
    stage = "in an evaluation" if lines and "Iter(val)" in lines[0] else "in a step"
    return f"{stage} after checkpoint {newest}" if newest else "before a checkpoint"


def _half_written(work_dir: Path) -> str:
    """What has a final name and is not whole; "" if nothing is."""
    sums = work_dir / "checkpoints.json"
    known = json.loads(sums.read_text()) if sums.exists() else {}
    for path in work_dir.glob("iter_*.pth"):
        if known.get(path.name) != sha256(path):
            return path.name
    for path in [*work_dir.glob("*.json"), *work_dir.glob("export/*.json")]:
        try:
            json.loads(path.read_text())
        except ValueError:
            return path.name
    if (work_dir / "config.py").exists():
        compile((work_dir / "config.py").read_text(), "config.py", "exec")
    if (work_dir / "export").exists():
        try:
            read_record(work_dir / "export").check_files(work_dir / "export")
        except MDPDError as error:
            return str(error)
    return ""


def _same_end(work_dir: Path, whole: Path) -> bool:
    if not same(weights(work_dir, STEPS), weights(whole, STEPS)):
        return False
    names = [p.relative_to(whole) for p in (whole / "export").rglob("*") if p.suffix in (".safetensors", ".pth")]
    return bool(names) and all((work_dir / n).read_bytes() == (whole / n).read_bytes() for n in names)
