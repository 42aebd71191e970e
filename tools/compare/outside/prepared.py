"""What a rival is given: the model of a configuration and its batches, in a folder, as transformers takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine.low_rank import low_rank_targets
from mdpd_plugins.files import write_json
from mdpd_plugins.registry import ConfigError
from mdpd_plugins.tasks import AnyTask
from mdpd_plugins.training.experiment import build_experiment, open_parts

ABOUT, MODEL, TRAINING, VALIDATION = "about.json", "model", "training.pt", "validation.pt"
# Kinds of label for which a transformers model computes a loss itself.
KINDS = ("single", "multi", "float")


def prepare(config: Config, folder: Path) -> AnyTask:
    """Write model, batches and settings of a configuration's run; its task.

    The model is the one that our engine trains, fresh output layer included, in the type that it is held in. Batches
    are those of our loaders, in their order, each as the keyword arguments that the adapter calls its model with.

    Args:
        config: complete, with `train.max_steps`, the number of training batches.

    Raises:
        ConfigError: this cannot be trained by transformers' Trainer as it is.
    """
    from transformers import PreTrainedModel

    parts = open_parts(config)
    adapter, task = parts.adapter, parts.task
    if not isinstance(adapter.model, PreTrainedModel):
        raise ConfigError(
            f"{adapter.name} is no transformers model, and peft is compared within transformers' Trainer: choose a "
            f"configuration of zoo_configs/huggingface"
        )
    own = task.kind in KINDS and not config.task.label_smoothing and not config.task.class_weights
    if not own or config.data.mix != "none":
        raise ConfigError(
            f"labels are {task.kind!r}, with task.label_smoothing={config.task.label_smoothing}, "
            f"task.class_weights={config.task.class_weights!r} and data.mix={config.data.mix!r}: only the plain losses "
            f"of {', '.join(KINDS)} labels are also those of transformers"
        )
    adapter.set_labels(task.classes, task.kind)
    adapter.model.save_pretrained(folder / MODEL)
    head = {name.rpartition(".")[0] for name in adapter.head_parameters()}
    optim = config.optim
    about = {
        "kind": type(adapter.model).__name__,
        "head": sorted(head),
        "query_value": low_rank_targets(adapter, everywhere=False),
        "steps": config.train.max_steps,
        "seed": config.train.seed,
        "rate": optim.scale * optim.low_rank_lr,
        "decay": optim.head_weight_decay,
        "schedule": optim.schedule,
    }
    write_json(folder / ABOUT, about)
    experiment = build_experiment(config, parts=parts)  # it may change the model, which is written already
    training = islice(iter(experiment.train_loader), config.train.max_steps)
    torch.save(_as_called(adapter, training), folder / TRAINING)
    torch.save(_as_called(adapter, experiment.val_loader), folder / VALIDATION)
    return task


def read_about(folder: Path) -> dict[str, Any]:
    """The settings that `prepare` wrote."""
    return json.loads((folder / ABOUT).read_text())


class _Seen(Exception):
    """The model's arguments are known; it need not run."""


def _as_called(adapter: Adapter, batches: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keyword arguments of the model for each batch, with "labels"."""
    found: list[dict[str, Any]] = []

    def look(module, args, kwargs):
        found.append({k: v for k, v in kwargs.items() if isinstance(v, (torch.Tensor, bool))})
        raise _Seen

    handle = adapter.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        for batch in batches:
            try:
                adapter.forward(batch["inputs"])
            except _Seen:
                found[-1]["labels"] = batch["labels"]
    finally:
        handle.remove()
    return found


__all__ = ["MODEL", "TRAINING", "VALIDATION", "prepare", "read_about"]
