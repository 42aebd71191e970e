"""Exports for OpenCLIP: `create_model_and_transforms` and `get_tokenizer` on the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.storage.trust import asks_for_trust, refused, remote_code_trusted
from mdpd_plugins.adapters.towers.fusion import compared
from mdpd_plugins.exports.exported import ExportedModel, Tensors
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.zoos.open_clip.adapter import CONFIG_FILE, WEIGHTS_FILE
from mdpd_plugins.zoos.open_clip.model import import_open_clip, tokenizer_of
from mdpd_plugins.zoos.transformers_code import own_code_only


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """A model whose `encode_image`, or `encode_text`, returns logits."""
    open_clip = import_open_clip()
    if not (folder / WEIGHTS_FILE).is_file():  # OpenCLIP would go on from random weights, with a warning
        raise CheckpointError(f"{str(folder)!r} holds no {WEIGHTS_FILE}: export again with `mdpd export WORK_DIR OUT`")
    settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if not remote_code_trusted() and asks_for_trust(settings):
        # OpenCLIP hands a tokenizer's settings on to transformers.
        raise refused(folder / CONFIG_FILE, "switches on that the folder's own code runs")
    source = f"local-dir:{folder}"
    with own_code_only(folder):
        model, _, transform = open_clip.create_model_and_transforms(source)

    def images(examples: Sequence[Any]) -> Tensors:
        return {"image": torch.stack([transform(image) for image in examples])}

    if record.modality == "image":
        # CoCa normalises by default.
        return ExportedModel(record, model, images, lambda x: model.encode_image(x["image"], normalize=False))
    with own_code_only(folder):
        tokenizer = tokenizer_of(source, settings["model_cfg"])

    def texts(examples: Sequence[Any]) -> Tensors:
        if any(isinstance(text, tuple) for text in examples):
            raise ConfigError("OpenCLIP's text towers read one text, and a pair was given: leave the second column out")
        return {"text": tokenizer(list(examples))}

    if record.modality == "image-text":

        def pairs(examples: Sequence[Any]) -> Tensors:
            pictures, captions = zip(*examples, strict=True)
            return {**images(pictures), **texts(captions)}

        def features(x: Tensors) -> torch.Tensor:
            image, text = (model.encode_image(x["image"]), model.encode_text(x["text"]))
            return compared(image, text, model.logit_scale)

        return ExportedModel(record, model, pairs, features)
    return ExportedModel(record, model, texts, lambda x: model.encode_text(x["text"], normalize=False))


__all__ = ["load"]
