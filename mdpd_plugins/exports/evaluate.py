"""Metrics of an exported model on the data of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mdpd_plugins.data import READS, LabelledDataset, Source, load_source, stack_blocks
from mdpd_plugins.engine.precision import autocast_dtype
from mdpd_plugins.engine.settings import evaluation_size
from mdpd_plugins.exports.exported import ExportedModel
from mdpd_plugins.registry.errors import DataError
from mdpd_plugins.tasks import Language, make_task

SHOWN = 12  # classes that a message lists


def evaluate_export(exported: ExportedModel, config: Config, split: str | None = None) -> dict[str, float]:
    """The metrics that training would report of the backbone path, from the exported model.

    Args:
        config: a complete configuration (`load_config`); its data, batch size and `train.amp` are used.
        split: "val" or "test"; by default the split that the configuration evaluates on.

    Returns:
        Metric -> value.

    Raises:
        DataError: the data has other labels, other classes or another modality than the export.
    """
    record = exported.record
    source = load_source(config.data.source, split or config.data.eval_split)
    task = make_task(record.task, record.classes, width=config.task.width)
    _check(exported, source)

    def collate(samples: Sequence[tuple[Any, torch.Tensor]]) -> dict[str, Any]:
        labels = torch.stack([label for _, label in samples])
        return {"inputs": exported.prepare([example for example, _ in samples]), "labels": labels}

    dataset: Any = LabelledDataset(source, None, train=False)
    if language := record.task == Language.kind:
        # Texts are packed all together, as in training.
        dataset = [(block, block) for block in exported.prepare([text for text, _ in source])["input_ids"]]
    loader = DataLoader(
        dataset,
        batch_size=evaluation_size(config),
        num_workers=config.data.num_workers,
        collate_fn=stack_blocks if language else collate,
    )
    scores, labels = [], []
    dtype = autocast_dtype(config.train.amp)
    with torch.autocast(exported.device.type, dtype=dtype, enabled=dtype is not None):
        for batch in loader:
            scores.append(task.scored(exported.forward(batch["inputs"]), batch["labels"]))
            labels.append(batch["labels"])
    return task.metrics(torch.cat(scores), torch.cat(labels))


def _check(exported: ExportedModel, source: Source) -> None:
    record = exported.record
    if source.modality != record.modality:
        raise DataError(
            f"the export reads {READS[record.modality]}, but the data is {READS[source.modality]}: give other data"
        )
    if record.task == Language.kind:
        return
    if source.label_kind != record.task:
        raise DataError(
            f"the export has {record.task!r} labels, but the data has {source.label_kind!r} ones: give the data it "
            f"was made for, or set data.source.label_kind where the source has it"
        )
    theirs = make_task(source.label_kind, source.classes, width=1).classes
    if theirs != record.classes:
        what = "in another order" if sorted(theirs) == sorted(record.classes) else "of other names"
        raise DataError(
            f"the data's classes are {what} than the export's. Data: {_listed(theirs)}. Export: "
            f"{_listed(record.classes)}. Give the data it was made for, or data.source.classes in the export's order"
        )


def _listed(classes: Sequence[str]) -> str:
    more = f", ... ({len(classes)} in all)" if len(classes) > SHOWN else ""
    return ", ".join(classes[:SHOWN]) + more


__all__ = ["evaluate_export"]
