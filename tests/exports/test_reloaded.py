"""An export that its zoo loads as something else, or not at all, never gets its name."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from exporting import export
from running import main, write_config

import mdpd_plugins as mdpd
from mdpd_plugins.exports import check_reloads
from mdpd_plugins.registry.errors import CheckpointError
from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter
from mdpd_plugins.zoos.open_clip.adapter import OpenCLIPAdapter


def _other_weight(adapter, folder):
    with torch.no_grad():
        next(iter(adapter.head_parameters().values())).mul_(1.5)


@pytest.mark.parametrize("key", ["hf-vit", "mm-resnet", "oc-image"])
def test_weights_that_differ_from_those_in_memory_are_refused(tmp_path, key):
    experiment, _ = export(tmp_path, key)
    adapter, folder = experiment.adapter, tmp_path / "export"
    examples = [experiment.eval_source[i][0] for i in range(4)]
    inputs = adapter.transform()(examples)
    check_reloads(folder, folder, adapter, inputs, examples)
    _other_weight(adapter, folder)
    with pytest.raises(CheckpointError, match=r"puts out other numbers once it is loaded again") as error:
        check_reloads(folder, folder, adapter, inputs, examples)
    assert adapter.name in str(error.value)


def test_pictures_that_are_prepared_otherwise_are_refused(tmp_path, monkeypatch):
    _broken(monkeypatch, HuggingFaceAdapter, "preprocessor_config.json", lambda c: c.update(image_mean=[0.1] * 3))
    with pytest.raises(CheckpointError, match="puts out other numbers"):
        export(tmp_path, "hf-vit")
    assert not (tmp_path / "export").exists()


def test_a_run_whose_export_cannot_be_loaded_fails_and_keeps_its_checkpoints(tmp_path, monkeypatch, capsys):
    _broken(monkeypatch, OpenCLIPAdapter, "open_clip_config.json", lambda c: c["model_cfg"].update(embed_dim=9))
    config = write_config(tmp_path, "oc-image", train={"max_steps": 2})
    assert main([config, "--work-dir", tmp_path / "run"]) == 2
    said = capsys.readouterr().err
    assert "error: the export of open_clip/ViT-B-16 cannot be used once it is loaded again" in said
    assert {"iter_2.pth", "config.py"} <= {p.name for p in (tmp_path / "run").iterdir()}
    left = [p.name for p in (tmp_path / "run").iterdir() if "export" in p.name or p.name == "summary.json"]
    assert not left


def _broken(monkeypatch, kind, file, change):
    """Let an adapter write one of its settings wrongly, as it would if a zoo changed what it keeps there."""
    write = kind.write

    def wrong(self, folder):
        write(self, folder)
        settings = json.loads((folder / file).read_text())
        change(settings)
        (folder / file).write_text(json.dumps(settings))

    monkeypatch.setattr(kind, "write", wrong)


def test_a_live_model_that_does_not_come_back_is_not_exported(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **sizes))
    mdpd.export(mdpd.adapt(model), tmp_path / "same")
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 0.5  # transformers takes it from the configuration
    with pytest.raises(CheckpointError, match="puts out other numbers once it is loaded again"):
        mdpd.export(mdpd.adapt(model), tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["same"]
