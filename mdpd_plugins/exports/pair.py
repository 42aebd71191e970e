"""Exports of a pair of towers: each by its own zoo's loader, and what joins their outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.towers.fusion import Comparison, Fusion
from mdpd_plugins.adapters.towers.pair import FUSION_FILE, PAIR_FILE, TwoTowers
from mdpd_plugins.exports.exported import ExportedModel, Tensors
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.registry.errors import CheckpointError

TOWERS = ("image", "text")


def load(
    folder: Path, record: ExportRecord, load_tower: Callable[[Path, ExportRecord], ExportedModel]
) -> ExportedModel:
    """Both towers and their fusion.

    Args:
        load_tower: loads a folder that one zoo knows.
    """
    width = json.loads((folder / PAIR_FILE).read_text(encoding="utf-8"))["width"]
    outputs = tuple(map(str, range(width)))
    image = replace(record, modality="image", classes=outputs)
    text = replace(record, modality="text", classes=outputs, backbone=record.text_backbone, options=record.text_options)
    towers = [load_tower(folder / name, each) for name, each in zip(TOWERS, (image, text), strict=True)]
    fusion = _fusion(folder, record, width)

    def prepare(examples: Sequence[Any]) -> Tensors:
        inputs: Tensors = {}
        for name, tower, part in zip(TOWERS, towers, zip(*examples, strict=True), strict=True):
            inputs.update({f"{name}/{key}": value for key, value in tower.prepare(part).items()})
        return inputs

    def call(inputs: Tensors) -> torch.Tensor:
        outputs = []
        for name, tower in zip(TOWERS, towers, strict=True):
            outputs.append(tower.call({k.partition("/")[2]: v for k, v in inputs.items() if k.startswith(f"{name}/")}))
        return fusion(*outputs)

    return ExportedModel(record, TwoTowers(towers[0].model, towers[1].model, fusion), prepare, call)


def _fusion(folder: Path, record: ExportRecord, width: int) -> nn.Module:
    from safetensors.torch import load_file

    fusion = Comparison() if record.task == "pair" else Fusion(width, len(record.classes))
    try:
        fusion.load_state_dict(load_file(folder / FUSION_FILE))
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(folder / FUSION_FILE)!r} does not fit two towers of {width} outputs: export again with `mdpd export "
            f"WORK_DIR OUT`"
        ) from error
    return fusion


__all__ = ["load"]
