"""`train.ema`: the average is what is measured, saved and exported; and hooks do not come between those."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running import main, same, trained, weights, write_config
from safetensors.torch import load_file

from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training import export_work_dir, load_config

FAST = {"norm_lr": 0.05, "head_lr": 0.05}
DISTILL = {"reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0}


def of_the_export(work_dir):
    found = evaluate_export(load_export(work_dir / "export", "cpu"), load_config(work_dir / "config.py"))
    return {f"backbone/{name}": value for name, value in found.items()}


def of_the_backbone(summary):
    return {k: v for k, v in summary["metrics"].items() if k.startswith("backbone/")}


def test_the_average_follows_its_formula_and_is_measured_saved_and_exported(tmp_path, capsys):
    config = write_config(
        tmp_path, optim=FAST, distill=DISTILL, train={"max_steps": 3, "checkpoint_every": 1, "val_every": 3}
    )
    key = "backbone.classifier.bias"
    averages = {}
    for steps, folder in ((2, "two"), (3, "three")):
        trained(config, tmp_path / folder, **{"train.max_steps": steps, "optim.schedule": "constant"})
        averages[steps] = weights(tmp_path / folder, steps)[key]
    summary = trained(config, tmp_path / "ema", **{"train.ema": 0.9, "optim.schedule": "constant"})
    saved = [torch.load(tmp_path / "ema" / f"iter_{i}.pth", weights_only=True) for i in (2, 3)]
    # The raw weights are those of a run without an average: training never sees it.
    assert [torch.equal(s["raw_weights"][key], averages[i]) for i, s in zip((2, 3), saved, strict=True)] == [True] * 2
    decay = min(0.9, 4 / 13)
    wanted = decay * saved[0]["state_dict"][key] + (1 - decay) * saved[1]["raw_weights"][key]
    torch.testing.assert_close(saved[1]["state_dict"][key], wanted)
    exported = load_file(tmp_path / "ema" / "export" / "model.safetensors")
    assert torch.equal(exported["classifier.bias"], saved[1]["state_dict"][key])
    assert of_the_export(tmp_path / "ema") == of_the_backbone(summary)
    out = export_work_dir(tmp_path / "ema", tmp_path / "again")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "ema/export/model.safetensors").read_bytes()
    capsys.readouterr()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_resumed_average_ends_where_one_ends_that_nobody_touched(tmp_path, capsys, keep):
    train = {"max_steps": 6, "checkpoint_every": 2, "val_every": 2, "ema": 0.8, "keep": keep}
    config = write_config(tmp_path, optim={**FAST, "accumulate": 2}, distill=DISTILL, train=train)
    assert main([config, "--work-dir", tmp_path / "whole"]) == 0
    half = [config, "--work-dir", tmp_path / "half"]
    assert main([*half, "--cfg-options", "train.max_steps=4", "optim.schedule=constant"]) == 0
    assert main([*half, "--resume", "--cfg-options", "optim.schedule=constant"]) == 0
    assert main([config, "--work-dir", tmp_path / "constant", "--cfg-options", "optim.schedule=constant"]) == 0
    assert same(weights(tmp_path / "half", 6), weights(tmp_path / "constant", 6))
    for run in ("half", "constant", "whole"):
        summary = json.loads((tmp_path / run / "summary.json").read_text())
        assert of_the_export(tmp_path / run) == of_the_backbone(summary), run
    capsys.readouterr()


def test_a_checkpoint_with_an_average_is_not_resumed_without_one(tmp_path, capsys):
    config = write_config(tmp_path, train={"max_steps": 2, "ema": 0.9})
    trained(config, tmp_path / "run")
    assert main([config, "--work-dir", tmp_path / "run", "--resume", "--cfg-options", "train.ema=None"]) == 2
    assert "iter_2.pth' was written with train.ema: resume with the settings in" in capsys.readouterr().err
    assert issubclass(CheckpointError, Exception)


def test_mmengines_hook_for_averages_is_refused_by_name(tmp_path):
    config = write_config(tmp_path, custom_hooks=[{"type": "EMAHook"}])
    with pytest.raises(ConfigError, match="custom_hooks has EMAHook: .* set train.ema=0.999"):
        trained(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Meddling(Hook):
    """Evaluates with other weights than it trains, as averaging hooks of other projects do."""

    def before_val_epoch(self, runner):
        self.kept = [p.detach().clone() for p in runner.model.trainable.values()]
        with torch.no_grad():
            for p in runner.model.trainable.values():
                p.mul_(-1)

    def after_val_epoch(self, runner, metrics=None):
        with torch.no_grad():
            for p, kept in zip(runner.model.trainable.values(), self.kept, strict=True):
                p.copy_(kept)


def test_what_a_hook_shows_the_evaluation_is_not_reported_of_the_export(tmp_path, capsys):
    HOOKS.register_module(name="Meddling", module=Meddling, force=True)
    config = write_config(
        tmp_path,
        optim=FAST,
        distill=DISTILL,
        data={"source": {"type": "packaged", "name": "digits", "train_size": 80, "val_size": 40}},
        custom_hooks=[{"type": "Meddling"}],
    )
    summary = trained(config, tmp_path / "run")
    assert of_the_export(tmp_path / "run") == of_the_backbone(summary)
    capsys.readouterr()
