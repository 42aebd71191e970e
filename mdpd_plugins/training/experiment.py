"""From a configuration to everything a run needs, built once and in one place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.causal import CausalLanguageModel, check_causal
from mdpd_plugins.data import (
    READS,
    Collate,
    EpochBatchSampler,
    LabelledDataset,
    NumberedCollate,
    NumberedDataset,
    PackedDataset,
    Source,
    load_source,
    make_transform,
    stack_blocks,
)
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.precision import autocast_dtype
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import AnyTask, Language, PathMetric, make_task
from mdpd_plugins.training.model import RunnerModel
from mdpd_plugins.training.optim import PathOptimisers, build_optim
from mdpd_plugins.training.towers import build_towers, prepare

OTHER_BACKBONE = {
    **{m: f"choose a backbone of that modality (mdpd list-backbones --modality {m})" for m in ("image", "text")},
    "image-text": "name a text tower besides with text_backbone.name, or both of OpenCLIP's with "
    "backbone.options.tower='both'",
}


@dataclass
class Experiment:
    """What a run consists of."""

    config: Config
    adapter: Adapter
    task: AnyTask
    distiller: RunnerModel
    optim: PathOptimisers
    train_loader: DataLoader
    val_loader: DataLoader
    metric: PathMetric
    source: Source
    eval_source: Source
    max_steps: int
    steps_per_epoch: int


def build_experiment(config: Config, *, adopt: Callable[[nn.Module], None] | None = None) -> Experiment:
    """Build data, backbone, side network and optimisers from a complete configuration.

    Args:
        adopt: called with the backbone's model as soon as there is one.

    Raises:
        ConfigError, DataError, CheckpointError, UnknownBackboneError, MissingDependencyError: what the
        configuration asks for is not available; nothing has been written.
    """
    set_random_seed(config.train.seed)
    settings = Settings.from_dict(config.distill.to_dict() if hasattr(config.distill, "to_dict") else config.distill)
    train, val = (load_source(config.data.source, split) for split in ("train", config.data.eval_split))
    task = make_task(config.task.kind or train.label_kind, train.classes, train.metric, width=config.task.width)
    if task.kind not in (Language.kind, train.label_kind):
        raise ConfigError(
            f"task.kind={task.kind!r}, but the data has {train.label_kind!r} labels: remove task.kind, or set "
            f"data.source.label_kind where the source has it"
        )
    adapter = build_towers(config, task)
    if adopt is not None:
        adopt(adapter.model)
    if adapter.modality != train.modality:
        raise ConfigError(
            f"{adapter.name} reads {READS[adapter.modality]}, but the data is {READS[train.modality]}: "
            f"{OTHER_BACKBONE[train.modality]}, or other data"
        )
    _check_language(adapter, task)
    prepare(adapter, config)
    numbered = settings.cache_features > 0
    loaders = _loaders(config, train, val, adapter, task.kind, numbered=numbered)
    steps_per_epoch = len(loaders[0].batch_sampler)  # type: ignore[arg-type]
    max_steps = config.train.max_steps or math.ceil(config.train.max_epochs * steps_per_epoch)
    distiller = RunnerModel(
        adapter,
        task,
        settings,
        max_steps=max_steps,
        accumulate=config.optim.accumulate,
        seed=config.train.seed,
        amp=autocast_dtype(config.train.amp),
    )
    return Experiment(
        config=config,
        adapter=adapter,
        task=task,
        distiller=distiller,
        optim=build_optim(distiller, config),
        train_loader=loaders[0],
        val_loader=loaders[1],
        metric=PathMetric(task),
        source=train,
        eval_source=val,
        max_steps=max_steps,
        steps_per_epoch=steps_per_epoch,
    )


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
    config: Config, train: Source, val: Source, adapter: Adapter, kind: str, *, numbered: bool
) -> tuple[DataLoader, DataLoader]:
    from mmengine.dataset import DefaultSampler

    seed, workers = config.train.seed, config.data.num_workers
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loaders fork after the tokenizer was used
    dataset: Any
    evaluation: Any
    collate: Any
    evaluation_collate: Any
    if kind == Language.kind:
        transform, collate, evaluation_collate = None, stack_blocks, stack_blocks
        text = adapter.text_transform()
        packing = text.tokenizer, text.max_length
        dataset, evaluation = (PackedDataset(source, *packing) for source in (train, val))
    else:
        transform = make_transform(train, config.data.augment)
        # Augmentation cuts a part out at random, which is then stretched, as every zoo does it in training.
        collate, evaluation_collate = (
            Collate(adapter.transform(stretch=transform is not None)),
            Collate(adapter.transform()),
        )
        dataset = LabelledDataset(train, transform, seed=seed, train=True)
        evaluation = LabelledDataset(val, None, seed=seed, train=False)
    if numbered:
        if transform is not None:
            raise ConfigError(
                f"distill.cache_features keeps what the backbone makes of each picture, but "
                f"data.augment={config.data.augment!r} changes them in every epoch: set data.augment='none', or "
                f"distill.cache_features=0"
            )
        dataset, evaluation = NumberedDataset(dataset), NumberedDataset(evaluation)
        collate, evaluation_collate = NumberedCollate(collate), NumberedCollate(evaluation_collate)
    sampler = DefaultSampler(dataset, shuffle=True, seed=seed)
    batches = EpochBatchSampler(sampler, config.data.batch_size, seed=seed)
    return (
        DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers),
        DataLoader(
            evaluation,
            batch_size=config.data.eval_batch_size,
            sampler=DefaultSampler(evaluation, shuffle=False),
            collate_fn=evaluation_collate,
            num_workers=workers,
        ),
    )


def first_batch(loader: DataLoader) -> dict[str, Any]:
    """The first batch of a loader, without starting its workers."""
    return loader.collate_fn([loader.dataset[i] for i in next(iter(loader.batch_sampler))])  # type: ignore


__all__ = ["Experiment", "build_experiment", "first_batch"]
