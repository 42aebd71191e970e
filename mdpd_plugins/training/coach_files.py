"""What the first stage of a run with a coach leaves in WORK_DIR/coach, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from safetensors.torch import load_file, save_file

from mdpd_plugins.files import fresh_file, read_signed, sha256, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.checkpoints import checkpoints, clear_leftovers
from mdpd_plugins.training.run_record import COACH_FOLDER, COACH_FOLDERS, check_run, run_name

ABOUT = "coach.json"
OUTPUTS = "outputs.safetensors"
NETWORK = "network.safetensors"
FILES = (OUTPUTS, NETWORK)


@dataclass(frozen=True)
class Coach:
    """A coach that has learned.

    Attributes:
        outputs: (N, C) float32, of all training examples, labelled ones first. about: plain values, see `coached`.
    """

    outputs: torch.Tensor
    about: dict[str, Any]


def has_begun(work_dir: Path) -> bool:
    """Whether a first stage left something to go on from in a work directory."""
    return (work_dir / COACH_FOLDER / ABOUT).is_file() or any(checkpoints(work_dir / name) for name in COACH_FOLDERS)


def read_coach(work_dir: Path) -> dict[str, Any]:
    """What is known of the coach of a finished run.

    Raises:
        CheckpointError: it is damaged.
    """
    about = _about(work_dir / COACH_FOLDER / ABOUT)
    return {key: value for key, value in about.items() if key not in ("identity", "sums")}


def read_network(work_dir: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What is known of the coach of a finished run, and its network's state.

    Raises:
        CheckpointError: either is damaged.
    """
    folder = work_dir / COACH_FOLDER
    about = _about(folder / ABOUT)
    _check_sums(folder, about["sums"])
    return about, load_file(folder / NETWORK)


def coach_name(about: dict[str, Any]) -> str:
    """Who taught, such as "ladder" or "reader+backbone"; a key of "scores"."""
    return about["kind"] + (f"+{about['together']['kind']}" if "together" in about else "")


def coach_lines(about: dict[str, Any]) -> list[str]:
    """What is known of a coach, in short lines."""
    scores = ", ".join(f"{kind} {score:.4f}" for kind, score in about["scores"].items())
    lines = [f"coach: {coach_name(about)} ({about['metric']} on val: {scores})"]
    if about["unlabelled"]:
        answers = ", ".join(f"{name} {count:,}" for name, count in about.get("answers", {}).items())
        said = f": {answers}; {about['certainty']:.2f} sure on average" if answers else ""
        lines.append(f"it teaches {about['unlabelled']:,} examples without a label{said}"[:120])
    return lines


def identity_of(config: Config) -> str:
    """A digest of everything that the first stage depends on."""
    kept = {
        key: value
        for key, value in config.to_dict().items()
        if key in ("backbone", "text_backbone", "task", "data", "distill", "optim", "coach")
    }
    kept["seed"], kept["amp"] = config.train.seed, config.train.amp
    return digest(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def clear_coach(config: Config) -> None:
    """Take out of the way what a run before left: also of a second coach, which begins later, or which this has not."""
    for folder in (Path(config.work_dir) / name for name in COACH_FOLDERS):
        for name in (ABOUT, *FILES):
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir():
            clear_leftovers(folder, keep_checkpoints=False)


def write_coach(folder: Path, coach: Coach, network: dict[str, torch.Tensor], identity: str) -> None:
    """Write a coach that has learned, what is known of it last: only with that is it there.

    Args:
        network: its state; empty for the backbone. identity: of `identity_of`.
    """
    for name, tensors in zip(FILES, ({"outputs": coach.outputs.contiguous()}, network), strict=True):
        with fresh_file(folder / name) as temporary:
            save_file(tensors, temporary)
    sums = {name: sha256(folder / name) for name in FILES}
    write_signed(folder / ABOUT, {**coach.about, "identity": identity, "sums": sums, "run": run_name(folder)})


def resumed_coach(folder: Path, identity: str) -> Coach | None:
    """The coach that a run left, to be resumed with; None if it has not learned to the end.

    Raises:
        ConfigError: it learned with other settings.
        CheckpointError: it is damaged.
    """
    if not (folder / ABOUT).is_file():
        return None
    about = _about(folder / ABOUT)
    known = about.pop("identity")
    if known != identity:
        raise ConfigError(
            f"the coach in {str(folder)!r} learned with other settings than this run's: resume with those of "
            f"{str(folder.parent / 'config.py')!r}, or train without --resume"
        )
    _check_sums(folder, about.pop("sums"))
    return Coach(load_file(folder / OUTPUTS)["outputs"], about)


def _check_sums(folder: Path, sums: dict[str, str]) -> None:
    for name in FILES:
        path = folder / name
        if not path.is_file() or sha256(path) != sums.get(name):
            raise CheckpointError(
                f"{str(path)!r} is missing, damaged, or of another run: put it back, or train without --resume"
            )


def _about(path: Path) -> dict[str, Any]:
    try:
        about = read_signed(path)
        if not {"identity", "sums", "kind", "scores"} <= set(about):
            raise ValueError("it does not say what a coach's does")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is missing or damaged ({error}): train without --resume") from error
    if "run" in about:  # those from before say nothing
        check_run(path.parent, path, about.pop("run"))
    return about


__all__ = [
    "Coach",
    "clear_coach",
    "coach_lines",
    "coach_name",
    "has_begun",
    "identity_of",
    "read_coach",
    "read_network",
    "resumed_coach",
    "write_coach",
]
