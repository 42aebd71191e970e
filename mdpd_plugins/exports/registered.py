"""Exports of other plugins' backbones: built by their registered name, then filled with the exported weights."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.exports.exported import ExportedModel
from mdpd_plugins.exports.record import ExportRecord


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """The plugin's model. Its adapter prepares inputs: such a backbone has no zoo that would.

    Raises:
        UnknownBackboneError: the plugin is not installed here.
    """
    built = build_backbone(record.backbone, pretrained=None, num_classes=len(record.classes), **record.options)
    adapter = built.around(built.load_exported(folder))
    adapter.prepare(input_size=record.size, resize=record.loaded_resize, max_length=record.max_length)
    return ExportedModel(record, adapter.model, adapter.transform(), adapter.forward)


__all__ = ["load"]
