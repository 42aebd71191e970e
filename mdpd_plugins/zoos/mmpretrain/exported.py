"""Exports for MMPretrain: `get_model` on the exported config, with its test pipeline and data preprocessor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.storage.checkpoint import check_keys, read_state_dict
from mdpd_plugins.exports.exported import ExportedModel, Tensors
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.zoos.mmpretrain.adapter import CHECKPOINT_FILE, CONFIG_FILE, import_mmpretrain
from mdpd_plugins.zoos.mmpretrain.config_file import read_exported_config
from mdpd_plugins.zoos.mmpretrain.pipeline import loaded


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """An `ImageClassifier`, and MMPretrain's own inferencer to prepare images for it."""
    import_mmpretrain()
    from mmengine.dataset import default_collate
    from mmengine.registry import DefaultScope
    from mmpretrain import ImageClassificationInferencer, get_model

    state = read_state_dict(folder / CHECKPOINT_FILE)  # refuses pickled code before the zoo opens it
    model: Any = get_model(read_exported_config(folder / CONFIG_FILE), pretrained=str(folder / CHECKPOINT_FILE))
    # mmengine loads what fits and leaves the rest at random.
    own = model.state_dict()
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    check_keys(repr(str(folder / CHECKPOINT_FILE)), type(model.backbone).__name__, missing, unexpected)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        pipeline = ImageClassificationInferencer(model).pipeline

    def prepare(images: Sequence[Any]) -> Tensors:
        return {"inputs": default_collate([pipeline(loaded(image)) for image in images])["inputs"]}

    def call(inputs: Tensors) -> torch.Tensor:
        outputs = model(model.data_preprocessor(inputs)["inputs"], mode="tensor")
        # A head with an output for each of two streams predicts by their sum (Conformer).
        return torch.stack(list(outputs)).sum(0) if isinstance(outputs, (tuple, list)) else outputs

    return ExportedModel(record, model, prepare, call)


__all__ = ["load"]
