"""Exports for torchvision: `torchvision.models.get_model`, with the sizes that the record names."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.exports import ExportedModel, ExportRecord
from mdpd_plugins.zoos.torchvision.adapter import TorchvisionAdapter, read


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """A classifier of torchvision's."""
    adapter = TorchvisionAdapter(read(folder))
    adapter.prepare(input_size=record.size, resize=record.loaded_resize)
    return ExportedModel(record, adapter.model, adapter.transform(), adapter.forward)


__all__ = ["load"]
