"""Kills: SIGKILL at a random moment of a run or a sweep, again and again, and the same command once more.

It ends as one that nobody touched, bit for bit, and nothing half-written has a final name. Runs are of one stage, or of
two: a coach learns, and then teaches.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess as Process
from pathlib import Path
from typing import NamedTuple

from running import preload, same, start, weights, write_config

from mdpd_plugins.exports import read_record
from mdpd_plugins.files import sha256
from mdpd_plugins.registry.errors import CheckpointError, MDPDError
from mdpd_plugins.training.checkpoints import optimizer_file, read_run
from tools.fault_kinds.attempt import CRASH, HALF, HANG, OTHER, RIGHT, SECONDS, Case
from tools.fault_kinds.kills_of_sweeps import UntouchedSweep, sweep_kills, untouched_sweep

ZOOS = ("hf-vit", "mm-vit", "oc-image")  # a small backbone of each that has configurations
# Of ten rows of a zoo: half in runs with a coach, one in sweeps.
FORMS = ("run", "coach", "run", "coach", "run", "coach", "run", "coach", "sweep", "coach")
STEPS = 6
IN_A_ROW = 5  # kills of one run
BUILDING = 0.1  # of the kills come while a run is built, the others after that
# What runs of all zoos import, and their ends, besides what tests' runs do.
PRELOADED = ("mdpd_plugins.zoos.mmpretrain.build", "sklearn.datasets")
PRELOADED += ("mdpd_plugins.zoos.open_clip.build", "mdpd_plugins.exports.load", "mdpd_plugins.training.coach")
COACH = {
    "data": {
        "source": {"type": "packaged", "name": "digits", "train_size": 40, "val_size": 16},
        "unlabelled": {"type": "rest", "size": 30},
    },
    "distill": {"method": "mdpd_coach", "reduction": 4, "bottleneck": 8},
    "coach": {"max_epochs": 3, "batch_size": 16},
}
# Warm-up and turns of the backbone, so that the phase changes within these steps.
ONE_STAGE = {"distill": {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.3}}


class Untouched(NamedTuple):
    """A run that nobody kills.

    Attributes:
        building: seconds until it begins to train. steps: from then to its last checkpoint. training: to its end.
    """

    config: Path
    work_dir: Path
    building: float
    steps: float
    training: float


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Rows of `IN_A_ROW` kills: of each zoo in turn, and of each form in turn."""
    preload(*PRELOADED)
    runs: dict[str, Untouched] = {}
    sweeps: dict[str, UntouchedSweep] = {}
    for first in range(numbers.start, numbers.stop, IN_A_ROW):
        row = first // IN_A_ROW
        zoo, form = ZOOS[row % len(ZOOS)], FORMS[row // len(ZOOS) % len(FORMS)]
        chosen = range(first, min(first + IN_A_ROW, numbers.stop))
        rng, subject = random.Random(f"kill {first}"), f"{zoo}, {form}"
        own = folder / f"{zoo}-{form}"
        if form == "sweep":
            sweeps[zoo] = sweeps.get(zoo) or untouched_sweep(own, zoo)
            yield from sweep_kills(subject, chosen, sweeps[zoo], rng)
        else:
            runs[subject] = runs.get(subject) or _untouched(own, zoo, COACH if form == "coach" else ONE_STAGE)
            yield from _run_of_kills(subject, chosen, runs[subject], rng, folder / "killed")


def _untouched(folder: Path, zoo: str, sections: dict) -> Untouched:
    train = {"max_steps": STEPS, "checkpoint_every": 1, "val_every": 2, "keep": "best"}
    config = write_config(folder, zoo, train=train, **sections)
    for name in ("warm", "run"):  # the first one pays for imports
        started = time.monotonic()
        process = start([config, "--work-dir", folder / name], folder / "log")
        _await_training(process, folder / name, 0)
        begun = time.monotonic()
        while process.is_alive() and _newest(folder / name) < STEPS:
            time.sleep(0.01)
        trained = time.monotonic()
        process.join()
        assert process.exitcode == 0, (folder / "log").read_text()[-2000:]
    return Untouched(config, folder / "run", begun - started, trained - begun, time.monotonic() - begun)


def _logs(work_dir: Path) -> int:
    """How often a stage has begun to train: mmengine makes a folder each time."""
    return len([p for p in (*work_dir.glob("2*"), *work_dir.glob("coach/2*")) if p.is_dir()])


def _await_training(process: Process, work_dir: Path, logs: int) -> None:
    while process.is_alive() and _logs(work_dir) == logs:
        time.sleep(0.01)


def _run_of_kills(
    subject: str, numbers: range, untouched: Untouched, rng: random.Random, work_dir: Path
) -> Iterator[Case]:
    log = work_dir.with_name("log")
    begun: list[tuple[int, str]] = []
    _start_anew(work_dir, log)
    for number in numbers:
        if _newest(work_dir) == STEPS and rng.random() < 0.5:  # only its end is left to be killed
            yield from _to_the_end(subject, begun, work_dir, log, untouched)
            begun = []
            _start_anew(work_dir, log)
        while True:
            logs = _logs(work_dir)
            process = start(_command(untouched, work_dir), log)
            if rng.random() < BUILDING:
                process.join(rng.uniform(0, untouched.building))
            else:
                # A step is far shorter than what comes after the last one.
                longest = untouched.steps if rng.random() < 0.6 else untouched.training
                _await_training(process, work_dir, logs)
                process.join(rng.uniform(0, longest * (1 if not begun else 0.5)))
            where = "while it is built" if _logs(work_dir) == logs else _moment(work_dir, log)
            process.kill()
            process.join()
            if process.exitcode < 0:
                break
            # It had ended already, so nothing was killed: that was the end of those kills, and another run begins.
            yield from _ended(subject, begun, process.exitcode, work_dir, log, untouched)
            begun = []
            _start_anew(work_dir, log)
        begun.append((number, where))
        if wrong := _half_written(work_dir):
            yield from (Case(subject, number, moment, HALF, wrong) for number, moment in begun)
            begun = []
            _start_anew(work_dir, log)
    yield from _to_the_end(subject, begun, work_dir, log, untouched)


def _to_the_end(subject: str, begun: list[tuple[int, str]], work_dir: Path, log: Path, untouched: Untouched):
    process = start(_command(untouched, work_dir), log)
    process.join(SECONDS)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    return _ended(subject, begun, status, work_dir, log, untouched)


def _start_anew(work_dir: Path, log: Path) -> None:
    shutil.rmtree(work_dir, ignore_errors=True)
    log.unlink(missing_ok=True)


def _command(untouched: Untouched, work_dir: Path) -> list[object]:
    begun = list(work_dir.glob("iter_*.pth")) or list(work_dir.glob("coach/iter_*.pth"))
    return [untouched.config, "--work-dir", work_dir, *(["--resume"] if begun else [])]


def _ended(
    subject: str, begun: list[tuple[int, str]], status: int | None, work_dir: Path, log: Path, untouched: Untouched
) -> Iterator[Case]:
    """A case for each kill of a run that then came to its end, or did not (None)."""
    outcome, said = RIGHT, ""
    if status is None:
        outcome, said = HANG, "after --resume"
    elif status != 0:
        outcome, said = CRASH, log.read_text(errors="replace")[-400:]
    elif different := _differs(work_dir, untouched.work_dir):
        outcome, said = OTHER, different
    elif left := [p.name for p in work_dir.rglob(".*")]:
        outcome, said = HALF, ", ".join(left)
    yield from (Case(subject, number, moment, outcome, said) for number, moment in begun)


def _moment(work_dir: Path, log: Path) -> str:
    """Roughly where a run is: what it said or wrote last."""
    if (work_dir / "summary.json").exists():
        return "at its end"
    if list(work_dir.glob(".export.*")) or (work_dir / "export").exists():
        return "while exporting"
    if any(list(work_dir.rglob(f".{name}_*")) for name in ("iter", "optimizer", "best")):
        return "while writing a checkpoint"
    if _newest(work_dir) == STEPS:
        return "after the last checkpoint"
    lines = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
    doing = "in an evaluation" if lines and "Iter(val)" in lines[0] else "in a step"
    if newest := _newest(work_dir):
        return f"{doing} after checkpoint {newest}"
    if (work_dir / "coach" / "coach.json").exists():
        return "between the stages"
    if newest := _newest(work_dir / "coach"):
        return f"{doing} after checkpoint {newest} of the coach"
    return "before a checkpoint"


def _newest(folder: Path) -> int:
    return max((int(p.stem[5:]) for p in folder.glob("iter_*.pth")), default=0)


def _half_written(work_dir: Path) -> str:
    """What has a final name and is not whole; "" if nothing is."""
    for folder in (work_dir, work_dir / "coach"):
        sums = folder / "checkpoints.json"
        known = json.loads(sums.read_text()) if sums.exists() else {}
        for path in folder.glob("iter_*.pth"):
            if known.get(path.name) != sha256(path):
                return str(path.relative_to(work_dir))
            try:
                read_run(path)  # with its optimisers' state
            except CheckpointError:
                return str(optimizer_file(path).relative_to(work_dir))
        for path in [*folder.glob("*.json"), *folder.glob("export/*.json")]:
            try:
                json.loads(path.read_text())
            except ValueError:
                return str(path.relative_to(work_dir))
        if (folder / "config.py").exists():
            compile((folder / "config.py").read_text(), "config.py", "exec")
    if (work_dir / "coach" / "coach.json").exists():
        for name, known_sum in json.loads((work_dir / "coach" / "coach.json").read_text())["sums"].items():
            if sha256(work_dir / "coach" / name) != known_sum:
                return f"coach/{name}"
    if (work_dir / "export").exists():
        try:
            read_record(work_dir / "export").check_files(work_dir / "export")
        except MDPDError as error:
            return str(error)
    return ""


def _differs(work_dir: Path, whole: Path) -> str:
    """What two runs ended with differently; "" if nothing."""
    if not same(weights(work_dir, STEPS), weights(whole, STEPS)):
        return "the last checkpoint's weights"
    files = [p.relative_to(whole) for p in (whole / "export").rglob("*") if p.suffix in (".safetensors", ".pth")]
    files += [p.relative_to(whole) for p in (whole / "coach").glob("*.safetensors")]
    if not files:
        return "nothing was exported"
    if other := [name for name in files if (work_dir / name).read_bytes() != (whole / name).read_bytes()]:
        return str(other[0])
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (work_dir, whole))
    return next((key for key in ("metrics", "coach", "steps") if ours[key] != theirs[key]), "")
