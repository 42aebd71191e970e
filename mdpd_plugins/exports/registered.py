"""Exports of other plugins' backbones: built by their registered name, then filled with the exported weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.storage.trust import asks_for_trust, refused, remote_code_trusted
from mdpd_plugins.exports.exported import ExportedModel
from mdpd_plugins.exports.record import RECORD_FILE, ExportRecord


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """The plugin's model. Its adapter prepares inputs: such a backbone has no zoo that would.

    Raises:
        UnknownBackboneError: the plugin is not installed here.
        CheckpointError: the record's options would let code of others run.
    """
    if not remote_code_trusted() and asks_for_trust(record.options):
        raise refused(folder / RECORD_FILE, "switches on that code of others runs")
    options = _found_here(record.options)
    built = build_backbone(record.backbone, pretrained=None, num_classes=len(record.classes), **options)
    adapter = built.around(built.load_exported(folder))
    adapter.prepare(input_size=record.size, resize=record.loaded_resize, max_length=record.max_length)
    return ExportedModel(record, adapter.model, adapter.transform(), adapter.forward)


def _found_here(options: dict[str, Any]) -> dict[str, Any]:
    # A path in the home folder of whoever exported is one in the home folder of whoever loads.
    return {k: os.path.expanduser(v) if isinstance(v, str) and v.startswith("~/") else v for k, v in options.items()}


__all__ = ["load"]
