"""Exports for timm: `timm.create_model("local-dir:...")`, with the transform that its config describes."""

from __future__ import annotations

from pathlib import Path

import timm

from mdpd_plugins.exports import ExportedModel, ExportRecord
from mdpd_plugins.zoos.timm.adapter import TimmAdapter


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """A classifier of timm's."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    adapter = TimmAdapter(model)
    adapter.prepare(input_size=record.size, resize=record.loaded_resize)
    return ExportedModel(record, model, adapter.transform(), adapter.forward)


__all__ = ["load"]
