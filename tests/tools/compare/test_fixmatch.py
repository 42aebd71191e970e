"""FixMatch in a sweep: what it adds to a batch, that its loss is the paper's, and what it refuses."""

from __future__ import annotations

import copy
import json
import sys
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running import text_table, write_config

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.training.experiment import build_experiment
from mdpd_plugins.training.running import build_runner
from tools.compare import sweep_command
from tools.compare.fixmatch import METHOD, load_fixmatch

UNLABELLED = ["data.unlabelled.type=rest", "data.unlabelled.size=24"]
DATA = {"augment": "crop"}


class FirstStep(Hook):
    """Keeps the first batch as the model gets it, and what its step says."""

    priority = "VERY_LOW"
    batch: dict = {}
    terms: dict = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Keep it."""
        if batch_idx == 0:
            FirstStep.batch = copy.deepcopy(data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Keep them."""
        if batch_idx == 0:
            FirstStep.terms = dict(outputs)


HOOKS.register_module(module=FirstStep)


def test_without_inputs_without_labels_it_says_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match="fixmatch learns from pictures without labels, too: set data.unlabelled"):
        load_fixmatch(str(write_config(tmp_path, data=DATA)), [METHOD])


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_its_loss_is_the_mean_of_labelled_ones_and_of_sure_ones_added_up(tmp_path, confidence):
    path = write_config(tmp_path, data=DATA, train={"max_steps": 1})
    config = load_fixmatch(str(path), [METHOD, *UNLABELLED, f"distill.confidence={confidence}"])
    config.work_dir = str(tmp_path / "work")
    config.custom_hooks = [*config.custom_hooks, {"type": "FirstStep"}]
    build_runner(build_experiment(config), None).train()
    batch = FirstStep.batch
    assert batch["labelled"].tolist() == [True] * 8 + [False] * 8 and len(batch["inputs"]["image"]) == 16
    untrained = build_experiment(config).distiller
    answers = untrained(batch["inputs"])["backbone"]
    losses = F.cross_entropy(answers, batch["teacher"].argmax(1), reduction="none")
    assert torch.equal(batch["teacher"].argmax(1)[:8], batch["labels"][:8])
    # Nothing is as sure as 1.0, and everything as 0.0.
    expected = losses[:8].mean() + (confidence == 0) * losses[8:].mean()
    assert float(FirstStep.terms["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_sweep_runs_it_and_says_what_it_needs(tmp_path, capsys):
    method = "fixmatch:method=fixmatch," + ",".join(UNLABELLED)
    config = write_config(tmp_path, data=DATA, train={"max_steps": 2})
    assert sweep(config, method, tmp_path / "runs.jsonl") == 0
    (line,) = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert line["method"] == "fixmatch" and line["steps"] == 2 and line["deploys"] == "backbone"
    assert not line["coach"] and not line["memory"] and line["overrides"][0] == METHOD
    for name, data in {
        "still": {"augment": "none"},
        "texts": {
            "source": {
                "type": "table",
                "path": str(text_table(tmp_path / "t.csv")),
                "text_column": "text",
                "label_column": "label",
            },
            "augment": "none",
        },
    }.items():
        wrong = write_config(tmp_path / name, *(["hf-minilm"] if name == "texts" else []), data=data)
        assert sweep(wrong, method, tmp_path / f"{name}.jsonl") == 1
        (told,) = [json.loads(text) for text in (tmp_path / f"{name}.jsonl.failed").read_text().splitlines()]
        assert "set data.augment, on pictures" in told["error"]
        assert told["command"].startswith(f"python -m tools.compare sweep {wrong} --methods {method} --seeds 0")
    capsys.readouterr()


def sweep(config, method, out):
    """Exit status of the command."""
    arguments = ["sweep", str(config), "--methods", method, "--seeds", "0", "--out", str(out)]
    with mock.patch.object(sys, "argv", arguments):
        return sweep_command.main()
