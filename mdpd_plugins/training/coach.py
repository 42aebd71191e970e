"""The first stage of methods with a coach: it learns alone, and what it says of every training example is kept.

It lies in WORK_DIR/coach: the ladder's checkpoints and evaluations, as of any run; then, once it has learned, its
outputs and what is known of it (`coach_files`). Where two teach together, the second one's checkpoints lie in
WORK_DIR/coach_2. A run that is resumed later begins with the second stage.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mdpd_plugins.console import console
from mdpd_plugins.data import Collate, LabelledDataset, NumberedDataset
from mdpd_plugins.engine.reader import STRENGTHS, PooledReader, fitted, pooled_states
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.scores import signed
from mdpd_plugins.training.best import load_best, read_history
from mdpd_plugins.training.checkpoints import checkpoints, clear_leftovers, latest_checkpoint, load_run
from mdpd_plugins.training.coach_files import (
    Coach,
    clear_coach,
    coach_lines,
    identity_of,
    read_network,
    resumed_coach,
    write_coach,
)
from mdpd_plugins.training.config import settings_of
from mdpd_plugins.training.experiment import Experiment, Parts, build_experiment, evaluation_loader
from mdpd_plugins.training.run_record import COACH_FOLDER, COACH_FOLDERS
from mdpd_plugins.training.running import build_runner, run_to_the_end


@dataclass(frozen=True)
class _Candidate:
    """A network that may become the coach, None for the backbone; what it says of val, (N, C); what is known of it."""

    network: Any
    outputs: torch.Tensor
    labels: torch.Tensor
    about: dict[str, Any]


@dataclass(frozen=True)
class _Learned:
    """One coach: calibrated outputs of all training examples and of val, val's labels, its network's state, and what is
    known of it."""

    outputs: torch.Tensor
    on_val: torch.Tensor
    labels: torch.Tensor
    network: dict[str, torch.Tensor]
    about: dict[str, Any]


def first_stage(config: Config, parts: Parts, number: int = 0) -> Experiment:
    """What a coach learns with, beside a backbone that `coached` leaves as it came. Nothing is written.

    Args:
        config: of the whole run. number: which of `Settings.coaches`.

    Raises:
        MDPDError: as `build_experiment`.
    """
    stage = _stage(config, number, pair=len(parts.adapter.towers) > 1)
    # A stage of its own, whatever happened before it in this process.
    set_random_seed(stage.train.seed)
    return build_experiment(stage, parts=parts, restorable=True)


def coached(config: Config, experiment: Experiment, *, resume: bool) -> Coach:
    """Let the coach learn, or read what it said if it has.

    Args:
        config: of the whole run. experiment: of `first_stage`; it is closed. resume: go on from what WORK_DIR/coach
            holds.

    Returns:
        The coach. `about` has "kind", "metric", "scores" (kind -> the main metric on val), "kept" (its main metric on
        `data.eval_split`: what it would have if it were kept), "temperature" (see `_temperature`), "epochs" of the
        ladder, the reader's "strength", "labelled" and "unlabelled" (numbers of examples), and, of one label,
        "answers" (class -> how many of the unlabelled) and "certainty" (mean probability of the answer). Where two
        teach together, "together" holds the same of the second, "scores" has their mean, too, and "answers" and
        "certainty" are of the mean.

    Raises:
        ConfigError: what is there was made with other settings.
        CheckpointError: what is there is damaged.
        MDPDError: as a training.
    """
    folder, identity = Path(config.work_dir) / COACH_FOLDER, identity_of(config)
    parts, (first, *others) = experiment.parts, settings_of(config).coaches
    try:
        if resume and (left := resumed_coach(folder, identity)) is not None:
            return left
        if not resume:
            clear_coach(config)
        found = _learned(experiment, first, folder, resume=resume)
    finally:
        experiment.distiller.close()
    for number, kind in enumerate(others, 1):
        stage = first_stage(config, parts, number)
        try:
            found = _mean(stage, found, _learned(stage, kind, Path(stage.config.work_dir), resume=resume))
        finally:
            stage.distiller.close()
    examples = {"labelled": len(parts.train), "unlabelled": 0 if parts.unlabelled is None else len(parts.unlabelled)}
    about = {**found.about, **examples, **_said(found.outputs[len(parts.train) :], parts)}
    coach = Coach(found.outputs, about)
    write_coach(folder, coach, found.network, identity)
    for line in coach_lines(coach.about):
        console(stderr=True).print(line, markup=False, highlight=False)
    return coach


def _learned(experiment: Experiment, kind: str, folder: Path, *, resume: bool) -> _Learned:
    """A coach of that kind; of "auto" the better one on val."""
    metric, path = experiment.task.main_metric, "backbone" if kind == "backbone" else "side"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, _Candidate] = {}
    if kind != "reader":
        epochs = _trained(experiment, folder, resume=resume)
        answers = _answers(experiment, experiment.val_loader, path)
        found["ladder" if kind == "auto" else kind] = _Candidate(
            experiment.distiller.side, *answers, {"epochs": epochs}
        )
    if kind in ("auto", "reader"):
        experiment.distiller.to(get_device())
        found["reader"] = _fit_reader(experiment)
    scores = {name: _score(experiment, one.outputs, one.labels) for name, one in found.items()}
    best = max(found, key=lambda name: signed(metric, scores[name]))  # of equals the first
    chosen = found[best]
    experiment.distiller.side = chosen.network
    temperature = _temperature(experiment.task.kind, chosen.outputs, chosen.labels)
    outputs, kept = _outputs(experiment, path) / temperature, scores[best]
    if experiment.eval_loader is not experiment.val_loader:
        kept = _score(experiment, *_answers(experiment, experiment.eval_loader, path))
    about = {
        "kind": best,
        "metric": metric,
        "scores": scores,
        "kept": kept,
        "temperature": temperature,
        **{key: value for one in found.values() for key, value in one.about.items()},
    }
    state = _state(experiment.distiller.side)
    return _Learned(outputs, chosen.outputs / temperature, chosen.labels, state, about)


def _mean(experiment: Experiment, first: _Learned, second: _Learned) -> _Learned:
    """Two coaches as one: their outputs' mean, as `teacher="mean"` has it of both paths. Its network is the first's."""
    on_val = (first.on_val + second.on_val) / 2
    name = f"{first.about['kind']}+{second.about['kind']}"
    scores = {**second.about["scores"], **first.about["scores"], name: _score(experiment, on_val, first.labels)}
    about = {**first.about, "scores": scores, "together": second.about}
    return _Learned((first.outputs + second.outputs) / 2, on_val, first.labels, first.network, about)


def load_coach(experiment: Experiment, work_dir: Path) -> None:
    """Put the network of a finished run's coach beside the backbone of its first stage's experiment.

    Raises:
        ConfigError: the coach is the control, which has no network of its own.
        CheckpointError: it is damaged.
    """
    about, state = read_network(work_dir)
    if about["kind"] == "backbone":
        folder = str(work_dir / COACH_FOLDER)
        raise ConfigError(f"the coach in {folder!r} is the backbone itself, so there is no side network to keep")
    if about["kind"] == "reader":
        outputs, features = state["linear.weight"].shape
        experiment.distiller.side = PooledReader(features, outputs)
    assert experiment.distiller.side is not None
    experiment.distiller.side.load_state_dict(state)


def _stage(config: Config, number: int, *, pair: bool) -> Config:
    """The configuration of a coach's own training.

    Args:
        number: which of several it is.
        pair: whether the backbone is a pair of towers, whose features are not kept.
    """
    first, given, whole = copy.deepcopy(config), config.coach, settings_of(config)
    settings = whole.first_stage(whole.coaches[number])
    first.train.max_epochs, first.train.max_steps = given.max_epochs, None
    first.train.patience, first.train.keep = given.patience, "best"
    if settings.side:
        first.data.batch_size = given.batch_size
        if settings.cache_views == 1:
            first.data.augment = "none"
        elif pair:
            raise ConfigError(
                f"distill.cache_views={settings.cache_views} is of features that are kept, and those of a pair of "
                f"towers are not: leave it at 1"
            )
        first.train.val_every = first.train.checkpoint_every = None
        # Nor is in memory what a file holds.
        in_memory = not pair and settings.cache_folder is None
        settings = replace(settings, cache_features=given.memory if in_memory else 0)
    first.distill = asdict(settings)
    first.data.unlabelled = {}  # it learns from labels; what it says of the others comes afterwards
    # Two of a kind differ by their seed; others learn as each would alone.
    first.train.seed = config.train.seed + whole.coaches[:number].count(whole.coaches[number])
    first.work_dir, first.export_dir = str(Path(config.work_dir) / COACH_FOLDERS[number]), None
    return first


def _trained(experiment: Experiment, folder: Path, *, resume: bool) -> float:
    """Train to the end, leave the best evaluation's weights in the experiment, and say after how many epochs it was."""
    checkpoint = latest_checkpoint(folder) if resume and checkpoints(folder) else None
    if checkpoint is not None:
        load_run(experiment, checkpoint)
    clear_leftovers(folder, keep_checkpoints=resume)
    run_to_the_end(build_runner(experiment, checkpoint))
    load_best(experiment, folder)
    best = max(read_history(folder), key=lambda entry: entry["score"])
    return best["step"] / experiment.steps_per_epoch


@torch.no_grad()
def _answers(experiment: Experiment, loader: DataLoader, path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs (N, C) float32, labels) of all examples of an evaluation."""
    found = [experiment.distiller.answers(batch) for batch in loader]
    return torch.cat([outputs[path].cpu() for outputs, _ in found]), torch.cat([labels.cpu() for _, labels in found])


def _score(experiment: Experiment, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """The task's main metric."""
    return experiment.task.metrics(outputs, labels)[experiment.task.main_metric]


def _temperature(kind: str, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """What outputs are divided by before they teach, so that their probabilities are likeliest on val; 1 for numbers.

    Temperature scaling (Guo et al., arXiv:1706.04599). A reader that is regularised so that it is right most often may
    answer 0.51 to 0.49 throughout, and a network that has fitted a hundred examples 0.99. As Platt does for sigmoids,
    labels are taken for right with probability (n + 1) / (n + 2): so a coach that is right on all of val has an answer.

    Args:
        kind: of the task's labels. outputs: (N, C) of val. labels: theirs.
    """
    from scipy.optimize import minimize_scalar

    if kind == "float":
        return 1.0
    outputs, doubt = outputs.double(), 1 / (len(outputs) + 2)

    def loss(log_temperature: float) -> float:
        scaled = outputs / math.exp(log_temperature)
        if kind == "multi":
            return float(F.binary_cross_entropy_with_logits(scaled, labels.double() * (1 - 2 * doubt) + doubt))
        return float(F.cross_entropy(scaled, labels, label_smoothing=doubt))

    limit = math.log(100.0)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)


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
def _fit_reader(experiment: Experiment) -> _Candidate:
    """The reader of the best strength on val; of equals the most regularised. It learns from every view."""
    task = experiment.task
    dataset: Any = experiment.train_loader.dataset
    dataset = dataset.all_views() if isinstance(dataset, NumberedDataset) else dataset
    ordered = evaluation_loader(experiment.config, dataset, experiment.train_loader.collate_fn)
    train, known = _pooled(experiment, ordered, "train")
    val, labels = _pooled(experiment, experiment.val_loader, "val")
    found = []
    for strength in STRENGTHS:
        reader = fitted(task.kind, train, known, task.num_outputs, strength)
        outputs = reader.linear((val - reader.mean) * reader.scale)
        found.append(_Candidate(reader.to(experiment.adapter.device), outputs, labels, {"strength": strength}))
    return max(found, key=lambda one: signed(task.main_metric, _score(experiment, one.outputs, one.labels)))


@torch.no_grad()
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


def _state(side: nn.Module | None) -> dict[str, torch.Tensor]:
    return {} if side is None else {k: v.detach().cpu().contiguous() for k, v in side.state_dict().items()}


__all__ = ["coached", "first_stage", "load_coach"]
