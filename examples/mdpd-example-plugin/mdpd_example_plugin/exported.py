"""From an exported folder to a model that `mdpd.load`, `mdpd predict` and `mdpd eval` use."""

from __future__ import annotations

from pathlib import Path

from mdpd_example_plugin.adapter import SmallViTAdapter
from mdpd_example_plugin.model import load as load_model
from mdpd_plugins.exports import ExportedModel, ExportRecord


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """The network through its own loader, with the preparation of pictures that it was trained with."""
    adapter = SmallViTAdapter(load_model(folder))
    adapter.input_size = record.size
    return ExportedModel(record, adapter.model, adapter.transform(), adapter.forward)
