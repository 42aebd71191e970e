"""Damage: a file of an export or of a work directory is changed, cut, emptied, lost, swapped, or a folder.

The answer is the one from before, or the command refuses and names the file. It is never another model's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from damaging import KINDS, damage
from exporting import export, table
from running import text_table, trained, write_config

from mdpd_plugins.cli.main import main
from mdpd_plugins.exports import load_export
from tools.fault_kinds.attempt import OTHER, REFUSED, RIGHT, UNNAMED, Case, Ended, attempt, numbered

EXPORTS = ("hf-vit", "hf-minilm", "encoder", "mm-resnet", "oc-image", "oc-text")
COMMANDS = ("export", "report", "resume")
# Runs of one stage and of two.
RUNS: dict[str, dict] = {
    "work directory": {},
    "work directory with a coach": {
        "data": {"unlabelled": {"type": "rest", "size": 30}},
        "distill": {"method": "mdpd_coach", "reduction": 4, "bottleneck": 8},
        "coach": {"max_epochs": 2},
    },
}
# The two halves have as many cases.
SUBJECTS = [(key, "") for key in EXPORTS] + [(key, command) for key in RUNS for command in COMMANDS]
STEPS = 4


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Every subject in turn, of each every file, and of that every kind of fault: 2,304 cases reach all."""
    made: dict[str, Path] = {}
    for number, rng in numbered(numbers, "damage"):
        key, command = SUBJECTS[number % len(SUBJECTS)]
        if key not in made:
            made[key] = _exports(folder / key, key) if not command else _runs(folder / key.replace(" ", "-"), RUNS[key])
        source, other = made[key] / "0", made[key] / "1"
        copy = folder / "case"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        names = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.name != "run.lock")
        turn = number // len(SUBJECTS)
        name, kind = names[turn % len(names)], KINDS[turn // len(names) % len(KINDS)]
        what = f"{damage(rng, copy / name, _same_of(other, name) or source / name, kind)} {name}"
        if not command:
            known = _weights(source)
            ended = attempt(partial(_weights, copy))
            same = ended.outcome == RIGHT and ended.value.keys() == known.keys()
            same = same and all(v.equal(known[k]) for k, v in ended.value.items())
        else:
            ended = attempt(partial(_command, command, made[key], copy))
            same = ended.outcome != RIGHT or _same(command, made[key], copy)
        yield _judged(f"{key}, {command}" if command else key, number, what, name.name, ended, same)


def _same_of(other: Path, name: Path) -> Path | None:
    """The file of that name in another folder, where folders of logs are named by the time."""
    found = [p for p in other.rglob(name.name) if p.is_file()]
    return next((p for p in found if p.relative_to(other) == name), found[0] if found else None)


def _judged(subject: str, number: int, what: str, name: str, ended: Ended, same: bool) -> Case:
    outcome = ended.outcome
    if outcome == RIGHT and not same:
        outcome = OTHER
    if outcome == REFUSED and Path(name).stem not in ended.said.replace("\n", ""):
        outcome = UNNAMED
    return Case(subject, number, what, outcome, "" if outcome in (RIGHT, REFUSED) else ended.said[-300:])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_export(folder).model.state_dict()


def _exports(folder: Path, key: str) -> Path:
    """Two exports of one architecture with other weights, in `folder`/0 and `folder`/1."""
    texts = table(text_table(_made(folder) / "texts.csv"), val_size=20)
    text = {"data": texts} if key in ("hf-minilm", "oc-text") else {}
    for seed in (0, 1):
        export(folder / f"made{seed}", key, seed=seed, **text)
        (folder / f"made{seed}" / "export").rename(folder / str(seed))
    return folder


def _runs(folder: Path, sections: dict) -> Path:
    """Two work directories of one configuration and other seeds; what each command makes of the first."""
    train = {"max_steps": STEPS, "checkpoint_every": 2, "val_every": 2, "keep": "best"}
    config = write_config(folder, train=train, **sections)
    for seed in (0, 1):
        trained(config, folder / str(seed), **{"train.seed": seed})
    for command in COMMANDS:
        work_dir = folder / f"after {command}"
        shutil.copytree(folder / "0", work_dir)
        assert _command(command, folder, work_dir) == 0
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command(command: str, folder: Path, work_dir: Path) -> int:
    if command == "resume":
        options = ["--cfg-options", f"train.max_steps={STEPS + 1}"]
        return main(["train", str(folder / "config.py"), "--work-dir", str(work_dir), "--resume", *options])
    out = ["--out", str(work_dir / "page.html")] if command == "report" else [str(work_dir / "out")]
    return main([command, str(work_dir), *out])


def _same(command: str, folder: Path, work_dir: Path) -> bool:
    """Whether a command left the model, or told of it, as it does of the undamaged work directory."""
    before = folder / f"after {command}"
    if command == "report":
        pages = [(w / "page.html").read_text().replace(str(w), "WORK_DIR") for w in (work_dir, before)]
        return pages[0] == pages[1]
    inside = Path("export" if command == "resume" else "out") / "model.safetensors"
    record = inside.with_name("mdpd.json")
    same = [(w / inside).read_bytes() for w in (work_dir, before)]
    classes = [json.loads((w / record).read_text())["classes"] for w in (work_dir, before)]
    return same[0] == same[1] and classes[0] == classes[1]
