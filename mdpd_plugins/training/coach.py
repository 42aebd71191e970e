"""The first stage of methods with a coach: it learns alone, and what it says of every training example is kept.

It lies in WORK_DIR/coach: the ladder's checkpoints and evaluations, as of any run; then, once it has learned, its
outputs and what is known of it. A run that is resumed later begins with the second stage.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from mdpd_plugins.console import console
from mdpd_plugins.data import Collate, LabelledDataset
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.reader import STRENGTHS, PooledReader, fitted, pooled_states
from mdpd_plugins.files import fresh_file, sha256, write_json
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.tasks.scores import ERRORS
from mdpd_plugins.training.best import load_best, read_history
from mdpd_plugins.training.checkpoints import checkpoints, clear_leftovers, latest_checkpoint, load_run
from mdpd_plugins.training.experiment import Experiment, Parts, build_experiment, evaluation_loader

FOLDER = "coach"
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


def coached(config: Config, parts: Parts, *, resume: bool) -> Coach:
    """Let the coach learn, or read what it said if it has.

    The backbone is left exactly as it came.

    Args:
        config: of the whole run. resume: go on from what WORK_DIR/coach holds.

    Returns:
        The coach. `about` has "kind", "metric", "scores" (kind -> the main metric on val), "kept" (its main metric on
        `data.eval_split`: what it would have if it were kept), "epochs" of the ladder, the
        reader's "strength", "labelled" and "unlabelled" (numbers of examples), and, of one label, "answers" (class ->
        how many of the unlabelled) and "certainty" (mean probability of the answer).

    Raises:
        ConfigError: what is there was made with other settings.
        CheckpointError: what is there is damaged.
        MDPDError: as a training.
    """
    folder = Path(config.work_dir) / FOLDER
    settings = Settings.from_dict(config.distill.to_dict())
    identity = _identity(config)
    if resume and (folder / ABOUT).is_file():
        return _read(folder, identity)
    if not resume:
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    assert settings.coach is not None
    kinds = ("ladder", "reader") if settings.coach == "auto" else (settings.coach,)
    found: dict[str, tuple[float, Any, dict[str, Any]]] = {}  # kind -> score on val, its network, what is known of it
    metric, path = parts.task.main_metric, "backbone" if kinds == ("backbone",) else "side"
    sign = -1 if metric in ERRORS else 1
    # The reader reads what the ladder's features are kept for, so it comes second.
    first = _first_stage(config, settings, "backbone" if kinds == ("backbone",) else "ladder", folder)
    experiment = build_experiment(first, parts=parts, restorable=True)
    try:
        if kinds != ("reader",):
            epochs = _trained(experiment, folder, resume=resume)
            found[kinds[0]] = (
                _scored(experiment, experiment.val_loader, path),
                experiment.distiller.side,
                {"epochs": epochs},
            )
        if "reader" in kinds:
            experiment.distiller.to(get_device())
            score, strength, reader = _fit_reader(experiment)
            found["reader"] = score, reader, {"strength": strength}
        best = max(found, key=lambda kind: sign * found[kind][0])  # of equals the first
        experiment.distiller.side = found[best][1]
        outputs, network = _outputs(experiment, path), _state(experiment.distiller.side)
        kept = found[best][0]
        if experiment.eval_loader is not experiment.val_loader:
            kept = _scored(experiment, experiment.eval_loader, path)
    finally:
        experiment.distiller.close()
    about = {
        "kind": best,
        "metric": metric,
        "scores": {kind: score for kind, (score, _, _) in found.items()},
        "kept": kept,
        **{key: value for _, _, more in found.values() for key, value in more.items()},
        "labelled": len(parts.train),
        "unlabelled": 0 if parts.unlabelled is None else len(parts.unlabelled),
        **_said(outputs[len(parts.train) :], parts),
    }
    coach = Coach(outputs, about)
    _write(folder, coach, network, identity)
    for line in coach_lines(about):
        console(stderr=True).print(line, markup=False, highlight=False)
    return coach


def stage_of_the_coach(config: Config, folder: Path) -> Config | None:
    """The configuration of a run's first stage, or None of a run without a coach; of a coach with a network."""
    settings = Settings.from_dict(config.distill.to_dict())
    return None if settings.coach is None else _first_stage(config, settings, "ladder", folder)


def has_begun(work_dir: Path) -> bool:
    """Whether a first stage left something to go on from in a work directory."""
    folder = work_dir / FOLDER
    return (folder / ABOUT).is_file() or bool(checkpoints(folder))


def read_coach(work_dir: Path) -> dict[str, Any]:
    """What is known of the coach of a finished run.

    Raises:
        CheckpointError: it is damaged.
    """
    about = _about(work_dir / FOLDER / ABOUT)
    return {key: value for key, value in about.items() if key not in ("identity", "sums")}


def load_coach(experiment: Experiment, work_dir: Path) -> None:
    """Put the network of a finished run's coach beside the backbone of its first stage's experiment.

    Raises:
        ConfigError: the coach is the control, which has no network of its own.
        CheckpointError: it is damaged.
    """
    folder = work_dir / FOLDER
    about = _about(folder / ABOUT)
    if about["kind"] == "backbone":
        raise ConfigError(f"the coach in {str(folder)!r} is the backbone itself, so there is no side network to keep")
    _check_sums(folder, about["sums"])
    state = load_file(folder / NETWORK)
    if about["kind"] == "reader":
        outputs, features = state["linear.weight"].shape
        experiment.distiller.side = PooledReader(features, outputs)
    assert experiment.distiller.side is not None
    experiment.distiller.side.load_state_dict(state)


def coach_lines(about: dict[str, Any]) -> list[str]:
    """What is known of a coach, in short lines."""
    scores = ", ".join(f"{kind} {score:.4f}" for kind, score in about["scores"].items())
    lines = [f"coach: {about['kind']} ({about['metric']} on val: {scores})"]
    if about["unlabelled"]:
        answers = ", ".join(f"{name} {count:,}" for name, count in about.get("answers", {}).items())
        said = f": {answers}; {about['certainty']:.2f} sure on average" if answers else ""
        lines.append(f"it teaches {about['unlabelled']:,} examples without a label{said}"[:120])
    return lines


def _first_stage(config: Config, settings: Settings, coach: str, folder: Path) -> Config:
    """The configuration of the coach's own training."""
    first = copy.deepcopy(config)
    own, given = settings.first_stage(coach), config.coach
    first.train.max_epochs, first.train.max_steps = given.max_epochs, None
    first.train.patience = given.patience
    if coach == "ladder":
        first.data.batch_size, first.data.augment = given.batch_size, "none"
        first.train.val_every = first.train.checkpoint_every = None
        # What a pair of towers puts out is not kept.
        memory = 0 if config.text_backbone.name else given.memory
        own = Settings.from_dict({**asdict(own), "cache_features": memory if own.cache_folder is None else 0})
    first.distill = asdict(own)
    first.train.keep = "best"
    first.data.unlabelled, first.data.eval_split = {}, "val"
    first.work_dir, first.export_dir = str(folder), None
    return first


def _trained(experiment: Experiment, folder: Path, *, resume: bool) -> float:
    """Train to the end, leave the best evaluation's weights in the experiment, and say after how many epochs it was."""
    from mdpd_plugins.training.train import build_runner, run_to_the_end  # which begins with this stage

    checkpoint = latest_checkpoint(folder) if resume and checkpoints(folder) else None
    if checkpoint is not None:
        load_run(experiment, checkpoint)
    clear_leftovers(folder, keep_checkpoints=resume)
    run_to_the_end(build_runner(experiment, checkpoint))
    load_best(experiment, folder)
    best = max(read_history(folder), key=lambda entry: entry["score"])
    return best["step"] / experiment.steps_per_epoch


@torch.no_grad()
def _scored(experiment: Experiment, loader: DataLoader, path: str) -> float:
    results: list[dict] = []
    for batch in loader:
        results += experiment.distiller.val_step(batch)
    return experiment.metric.compute_metrics(results)[f"{path}/{experiment.task.main_metric}"]


@torch.no_grad()
def _outputs(experiment: Experiment, path: str) -> torch.Tensor:
    """(N, C) float32 of all training examples as they are, without augmentation, labelled ones first."""
    parts, config = experiment.parts, experiment.config
    found = []
    for source in (parts.train, parts.unlabelled):
        if source is None:
            continue
        for batch in evaluation_loader(config, LabelledDataset(source), Collate(parts.adapter.transform())):
            inputs = {k: v.to(parts.adapter.device) for k, v in batch["inputs"].items()}
            found.append(experiment.distiller(inputs)[path].float().cpu())
    return torch.cat(found)


@torch.no_grad()
def _fit_reader(experiment: Experiment) -> tuple[float, float, PooledReader]:
    """(main metric on val, strength, reader) of the best strength; of equals the most regularised."""
    task, sign = experiment.task, -1 if experiment.task.main_metric in ERRORS else 1
    dataset: Any = experiment.train_loader.dataset
    ordered = evaluation_loader(experiment.config, dataset, experiment.train_loader.collate_fn)
    train, known = _pooled(experiment, ordered, "train")
    val, labels = _pooled(experiment, experiment.val_loader, "val")
    best: tuple[float, float, PooledReader] | None = None
    for strength in STRENGTHS:
        reader = fitted(task.kind, train, known, task.num_outputs, strength)
        outputs = reader.linear((val - reader.mean) * reader.scale)
        score = task.metrics(outputs, labels)[task.main_metric]
        if best is None or sign * score > sign * best[0]:
            best = score, strength, reader
    assert best is not None
    return best[0], best[1], best[2].to(experiment.adapter.device)


def _pooled(experiment: Experiment, loader: DataLoader, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(pooled states (N, F), labels) of all examples, from features that are kept."""
    features, labels = [], []
    for batch in loader:
        inputs = {k: v.to(experiment.adapter.device) for k, v in batch["inputs"].items()}
        names = [(split, n) for n in batch["samples"].tolist()] if "samples" in batch else []
        features.append(pooled_states(experiment.distiller.kept_towers(inputs, names)).cpu())
        labels.append(batch["labels"])
    return torch.cat(features), torch.cat(labels)


def _said(outputs: torch.Tensor, parts: Parts) -> dict[str, Any]:
    """What the coach makes of inputs without labels, of one label each."""
    if not len(outputs) or parts.task.kind != "single":
        return {}
    counts = outputs.argmax(1).bincount(minlength=outputs.shape[1]).tolist()
    sure = float(outputs.softmax(1).amax(1).mean())
    return {"answers": dict(zip(parts.task.classes, counts, strict=True)), "certainty": sure}


def _identity(config: Config) -> str:
    """A digest of everything that the first stage depends on."""
    kept = {
        key: value
        for key, value in config.to_dict().items()
        if key in ("backbone", "text_backbone", "task", "data", "distill", "optim", "coach")
    }
    kept["seed"], kept["amp"] = config.train.seed, config.train.amp
    return digest(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _clear(folder: Path) -> None:
    for name in (ABOUT, *FILES):
        (folder / name).unlink(missing_ok=True)


def _state(side: nn.Module | None) -> dict[str, torch.Tensor]:
    return {} if side is None else {k: v.detach().cpu().contiguous() for k, v in side.state_dict().items()}


def _write(folder: Path, coach: Coach, network: dict[str, torch.Tensor], identity: str) -> None:
    for name, tensors in zip(FILES, ({"outputs": coach.outputs.contiguous()}, network), strict=True):
        with fresh_file(folder / name) as temporary:
            save_file(tensors, temporary)
    sums = {name: sha256(folder / name) for name in FILES}
    write_json(folder / ABOUT, {**coach.about, "identity": identity, "sums": sums})


def _read(folder: Path, identity: str) -> Coach:
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
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or not {"identity", "sums", "kind", "scores"} <= set(about):
            raise ValueError("it does not say what a coach's does")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is missing or damaged ({error}): train without --resume") from error
    return about


__all__ = ["FOLDER", "Coach", "coach_lines", "coached", "has_begun", "load_coach", "read_coach", "stage_of_the_coach"]
