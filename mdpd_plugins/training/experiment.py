"""From a configuration to everything a run needs, built once and in one place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.causal import CausalLanguageModel, check_causal
from mdpd_plugins.adapters.factory import explained
from mdpd_plugins.adapters.quantized import NONE
from mdpd_plugins.data import (
    READS,
    Collate,
    EpochBatchSampler,
    LabelledDataset,
    Mixing,
    NumberedCollate,
    NumberedDataset,
    PackedDataset,
    Source,
    TaughtCollate,
    TaughtDataset,
    load_source,
    load_unlabelled,
    make_transform,
    stack_blocks,
)
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.fading import check_savable
from mdpd_plugins.engine.precision import autocast_dtype
from mdpd_plugins.engine.settings import evaluation_size
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import KINDS, AnyTask, Language, PathMetric, Retrieval, balanced_weights, make_task
from mdpd_plugins.training.config import settings_of
from mdpd_plugins.training.model import RunnerModel
from mdpd_plugins.training.optim import PathOptimisers, build_optim
from mdpd_plugins.training.towers import build_towers, prepare

OTHER_BACKBONE = {
    **{m: f"choose a backbone of that modality (mdpd list-backbones --modality {m})" for m in ("image", "text")},
    "image-text": "name a text tower besides with text_backbone.name, or both of OpenCLIP's with "
    "backbone.options.tower='both'",
}


@dataclass
class Parts:
    """What a run has before anything learns: its data, its task and its backbone, each opened once.

    Attributes:
        train: labelled training examples. unlabelled: inputs without labels, if there are any. watched: what is
            evaluated while training. evaluated: what final numbers are of, often the same.
    """

    train: Source
    unlabelled: Source | None
    watched: Source
    evaluated: Source
    task: AnyTask
    adapter: Adapter


@dataclass
class Experiment:
    """What a run consists of.

    Attributes:
        val_loader: what is evaluated while training. eval_loader: what final numbers are of.
    """

    config: Config
    parts: Parts
    distiller: RunnerModel
    optim: PathOptimisers
    train_loader: DataLoader
    val_loader: DataLoader
    eval_loader: DataLoader
    metric: PathMetric
    max_steps: int
    steps_per_epoch: int

    @property
    def adapter(self) -> Adapter:
        """The backbone."""
        return self.parts.adapter

    @property
    def task(self) -> AnyTask:
        """What is learned."""
        return self.parts.task

    @property
    def source(self) -> Source:
        """Labelled training examples."""
        return self.parts.train

    @property
    def eval_source(self) -> Source:
        """What final numbers are of."""
        return self.parts.evaluated


def watches(config: Config) -> bool:
    """Whether evaluations decide what is kept or when training stops. They are then of `val`, whatever is reported."""
    return config.train.keep == "best" or config.train.patience is not None


def open_parts(config: Config, *, adopt: Callable[[nn.Module], None] | None = None) -> Parts:
    """Open data and build the backbone.

    Args:
        adopt: called with the backbone's model as soon as there is one.

    Raises:
        MDPDError: as `build_experiment`.
    """
    set_random_seed(config.train.seed)
    settings = settings_of(config)
    split = config.data.eval_split
    watched = "val" if watches(config) or settings.coach else split
    train, evaluated = (load_source(config.data.source, s) for s in ("train", split))
    task = _task(config, train)
    unlabelled = None
    if config.data.unlabelled:
        if settings.coach is None:
            raise ConfigError(
                f"data.unlabelled is for a coach to teach on, and distill.method={settings.method!r} has none: set "
                f"distill.method='mdpd_coach' or 'mdpd_coach_low_rank', or remove data.unlabelled"
            )
        unlabelled = load_unlabelled(config.data.unlabelled, config.data.source, train)
    adapter = build_towers(config, task)
    if adopt is not None:
        adopt(adapter.model)
    if adapter.modality != train.modality:
        raise ConfigError(
            f"{adapter.name} reads {READS[adapter.modality]}, but the data is {READS[train.modality]}: "
            f"{OTHER_BACKBONE[train.modality]}, or other data"
        )
    _check_language(adapter, task)
    if config.backbone.quantized_export:
        check_savable(adapter)
    if config.parallel.shard and (kind := adapter.held_quantized()) != NONE:
        raise ConfigError(
            f"parallel.shard shares weights out in their own type, and {adapter.name} is held quantised ({kind}): set "
            f"backbone.quantization='none', or parallel.shard=False"
        )
    prepare(adapter, config)
    _check_runs(adapter, config)
    return Parts(
        train=train,
        unlabelled=unlabelled,
        watched=evaluated if watched == split else load_source(config.data.source, watched),
        evaluated=evaluated,
        task=task,
        adapter=adapter,
    )


def _check_runs(adapter: Adapter, config: Config) -> None:
    """Raise ConfigError if the backbone, built as asked, does not run: libraries find some of it out no sooner."""
    asked = {f"{s}.options": config[s].options for s in ("backbone", "text_backbone") if config[s].options}
    if config.data.input_size is not None:
        asked["data.input_size"] = config.data.input_size
    with explained(f"{adapter.name} does not run", asked):
        _ = adapter.named_blocks


def build_experiment(
    config: Config,
    *,
    adopt: Callable[[nn.Module], None] | None = None,
    parts: Parts | None = None,
    taught: torch.Tensor | None = None,
    restorable: bool = False,
) -> Experiment:
    """Build data, backbone, side network and optimisers from a complete configuration.

    Args:
        adopt: called with the backbone's model as soon as there is one.
        parts: those of `open_parts`, where another stage of the run has opened them.
        taught: (N, C) float, a coach's outputs for all training examples, labelled ones first. Without them a method
            with a coach is built as it will be, taught by zeros: to plan it, or to load what it has learned.
        restorable: as `Distiller` takes it.

    Raises:
        ConfigError, DataError, CheckpointError, UnknownBackboneError, MissingDependencyError: what the
        configuration asks for is not available; nothing has been written.
    """
    settings = settings_of(config)
    if parts is None:
        parts = open_parts(config, adopt=adopt)
    if settings.coach is not None:
        # A stage of its own, whatever happened before it in this process.
        set_random_seed(config.train.seed)
    loaders = _loaders(config, parts, settings, taught)
    steps_per_epoch = len(loaders[0].batch_sampler)  # type: ignore[arg-type]
    max_steps = config.train.max_steps or math.ceil(config.train.max_epochs * steps_per_epoch)
    distiller = RunnerModel(
        parts.adapter,
        parts.task,
        settings,
        max_steps=max_steps,
        accumulate=config.optim.accumulate,
        seed=config.train.seed,
        amp=autocast_dtype(config.train.amp),
        restorable=restorable,
    )
    distiller.mixing = _mixing(config, parts, settings)
    return Experiment(
        config=config,
        parts=parts,
        distiller=distiller,
        optim=build_optim(distiller, config),
        train_loader=loaders[0],
        val_loader=loaders[1],
        eval_loader=loaders[2],
        metric=PathMetric(parts.task),
        max_steps=max_steps,
        steps_per_epoch=steps_per_epoch,
    )


def _task(config: Config, train: Source) -> AnyTask:
    given = config.task
    kind, weights = given.kind or train.label_kind, given.class_weights
    # Asked before the task is made, which has more to say on its number of outputs.
    if kind in (*KINDS, Retrieval.kind) and kind != train.label_kind:
        raise ConfigError(
            f"task.kind={kind!r}, but the data has {train.label_kind!r} labels: remove task.kind, or set "
            f"data.source.label_kind where the source has it"
        )
    if weights == "balanced":
        if kind != "single":
            raise ConfigError(f"task.class_weights='balanced' is for one label a sample, and this data has {kind!r}")
        weights = balanced_weights(train.labels, train.classes)  # type: ignore[arg-type]
    elif weights is not None and not isinstance(weights, (list, tuple)):
        raise ConfigError(f"task.class_weights={weights!r}: a list of numbers, 'balanced', or None is meant")
    about = {"width": given.width, "label_smoothing": given.label_smoothing, "class_weights": weights}
    return make_task(kind, train.classes, train.metric, **about)


def _mixing(config: Config, parts: Parts, settings: Settings) -> Mixing | None:
    """What mixes the pictures of a batch.

    Raises:
        ConfigError: there are none, or what is kept or taught belongs to single pictures.
    """
    if (mix := config.data.mix) == "none":
        return None
    reasons = {
        f"this data is {READS[parts.train.modality]}": parts.train.modality != "image",
        f"its labels are {parts.task.kind!r}": parts.task.kind != "single",
        "a coach's outputs are of single pictures": settings.coach is not None,
        "features are kept of single pictures": settings.keeps_features,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"data.mix={mix!r} mixes pictures with one label each, but {reason}: remove data.mix")
    return Mixing(mix, parts.task.num_outputs)


def _check_language(adapter: Adapter, task: AnyTask) -> None:
    """Raise ConfigError if one of both models language and the other does not."""
    if isinstance(adapter, CausalLanguageModel) != isinstance(task, Language):
        raise ConfigError(
            f"{adapter.name} is built {'as a' if task.kind != Language.kind else 'not as a'} language model, but the "
            f"task is {task.kind!r}: task.kind='language' and backbone.options.head='causal' go together"
        )
    if task.kind == Language.kind:
        check_causal(adapter)


def _loaders(
    config: Config, parts: Parts, settings: Settings, taught: torch.Tensor | None
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Of training, of evaluation while training, and of the final one."""
    from mmengine.dataset import DefaultSampler

    seed, workers = config.train.seed, config.data.num_workers
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loaders fork after the tokenizer was used
    dataset: Any
    watched: Any
    evaluated: Any
    collate: Any
    evaluation_collate: Any
    transform = None
    if parts.task.kind == Language.kind:
        collate = evaluation_collate = stack_blocks
        text = parts.adapter.text_transform()
        dataset, watched, evaluated = (
            PackedDataset(source, text.tokenizer, text.max_length)
            for source in (parts.train, parts.watched, parts.evaluated)
        )
    else:
        transform = make_transform(parts.train, config.data.augment)
        # Augmentation cuts a part out at random, which is then stretched, as every zoo does it in training.
        collate = Collate(parts.adapter.transform(stretch=transform is not None))
        evaluation_collate = Collate(parts.adapter.transform())
        views = settings.cache_views if settings.keeps_features else 0
        dataset = LabelledDataset(parts.train, transform, seed=seed, train=True, views=views)
        watched, evaluated = (LabelledDataset(source, None, seed=seed) for source in (parts.watched, parts.evaluated))
    if settings.coach is not None:
        more = None
        if parts.unlabelled is not None:
            more = LabelledDataset(parts.unlabelled, transform, seed=seed + 1, train=True)
        count = len(dataset) + (0 if more is None else len(more))
        blank = torch.zeros(count, parts.task.num_outputs)
        outputs = blank if taught is None else taught
        dataset = TaughtDataset(dataset, more, outputs, settings.labelled_repeats)
        collate = TaughtCollate(collate)
    final = evaluated, evaluation_collate
    if settings.cache_views > 1 and not settings.takes_views:
        raise ConfigError(
            f"distill.cache_views={settings.cache_views} is of hidden states that are kept, and none are: set "
            f"distill.cache_features or cache_folder, or leave it at 1"
        )
    if settings.keeps_features:
        if transform is not None and settings.cache_views == 1:
            raise ConfigError(
                f"distill.cache_features keeps what the backbone makes of each picture, but "
                f"data.augment={config.data.augment!r} changes them in every epoch: set data.augment='none', or "
                f"distill.cache_views=4 to keep each picture and three changed ones, or distill.cache_features=0"
            )
        if transform is None and settings.cache_views > 1:
            raise ConfigError(
                f"distill.cache_views={settings.cache_views} keeps augmented views of each picture, but "
                f"data.augment={config.data.augment!r} comes to none here: choose one, such as 'crop', or set "
                f"distill.cache_views=1"
            )
        dataset, watched = NumberedDataset(dataset, settings.cache_views), NumberedDataset(watched)
        collate, evaluation_collate = NumberedCollate(collate), NumberedCollate(evaluation_collate)
    sampler = DefaultSampler(dataset, shuffle=True, seed=seed)
    batches = EpochBatchSampler(sampler, config.data.batch_size, seed=seed)
    while_training = evaluation_loader(config, watched, evaluation_collate)
    same = parts.watched is parts.evaluated
    return (
        DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers),
        while_training,
        while_training if same else evaluation_loader(config, *final),
    )


def evaluation_loader(config: Config, dataset: Any, collate: Any) -> DataLoader:
    """Examples in order, in batches of `data.eval_batch_size`."""
    from mmengine.dataset import DefaultSampler

    return DataLoader(
        dataset,
        batch_size=evaluation_size(config),
        sampler=DefaultSampler(dataset, shuffle=False),
        collate_fn=collate,
        num_workers=config.data.num_workers,
    )


def first_batch(loader: DataLoader) -> dict[str, Any]:
    """The first batch of a loader, without starting its workers."""
    return loader.collate_fn([loader.dataset[i] for i in next(iter(loader.batch_sampler))])  # type: ignore


__all__ = [
    "Experiment",
    "Parts",
    "build_experiment",
    "evaluation_loader",
    "first_batch",
    "open_parts",
    "watches",
]
