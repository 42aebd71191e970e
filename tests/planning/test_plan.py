"""What a plan says is what a step then holds."""

from __future__ import annotations

import json

import pytest
import torch
from running import text_table, write_config
from small_zoo import BACKBONES
from torch._subclasses.fake_tensor import FakeTensor

from mdpd_plugins.cli.main import main
from mdpd_plugins.engine.fake_tensors import Imagination, imagined
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.training import load_config
from mdpd_plugins.training.experiment import build_experiment
from mdpd_plugins.training.step_memory import BESIDES
from mdpd_plugins.training.train import dry_run

CASES = [
    *(("hf-vit", method) for method in ("mdpd", "full", "lora", "norm", "ladder", "mdpd_low_rank")),
    *((small_backbone, method) for small_backbone in ("mm-vit", "oc-image") for method in ("mdpd", "full", "lora")),
]


def planned_and_measured(tmp_path, small_backbone, **sections):
    path = write_config(tmp_path, small_backbone, **sections)
    found = dry_run(load_config(path))
    return plan(load_config(path)), found


@pytest.mark.parametrize("small_backbone, method", CASES)
def test_a_plan_equals_what_is_then_measured(tmp_path, capsys, small_backbone, method):
    ours, theirs = planned_and_measured(tmp_path, small_backbone, distill={"method": method})
    capsys.readouterr()
    assert ours.weights == theirs["weights"] > 0
    assert ours.step.as_dict() == theirs["memory"]
    assert ours.evaluation == theirs["evaluation"] > 0 and ours.run == theirs["run"] > theirs["weights"]
    assert ours.trained == theirs["parameters"]["backbone_trained"] and ours.side == theirs["parameters"]["side"]


def test_a_run_holds_its_evaluations_and_what_is_kept(tmp_path):
    def planned(**options):
        return plan(load_config(write_config(tmp_path, "hf-vit"), options))

    same = planned()  # as many samples in an evaluation as in a training step, which holds more
    assert same.run == same.weights + same.step.total + BESIDES and same.features == 0
    large = planned(**{"data.eval_batch_size": 8 * load_config(write_config(tmp_path, "hf-vit")).data.batch_size})
    assert large.step == same.step and large.evaluation > same.evaluation
    assert large.run == large.weights + large.step.between + large.evaluation + BESIDES > same.run
    assert planned(**{"distill.sub_batch": 1}).evaluation < same.evaluation
    kept = planned(**{"distill.method": "ladder", "distill.cache_features": 100})
    assert kept.features > 0 and kept.run >= kept.weights + kept.step.total + kept.features


def test_a_run_with_a_coach_holds_what_its_larger_stage_holds(tmp_path):
    found = plan(load_config(write_config(tmp_path, "hf-vit", distill={"method": "mdpd_coach"})))
    assert found.first is not None and found.first.features > 0 and found.first.side > 0 == found.side
    assert found.run == max(found.first.run, found.weights + found.step.total + BESIDES)


@pytest.mark.parametrize(
    "small_backbone, method", [("hf-vit", "mdpd"), ("mm-vit", "mdpd_low_rank"), ("oc-image", "full")]
)
def test_narrow_weights_are_planned_to_the_byte(tmp_path, capsys, small_backbone, method):
    name, options = BACKBONES[small_backbone]
    backbone = {"name": name, "pretrained": None, "options": options, "dtype": "bfloat16"}
    ours, theirs = planned_and_measured(tmp_path, small_backbone, backbone=backbone, distill={"method": method})
    capsys.readouterr()
    assert ours.weights == theirs["weights"] > 0
    assert ours.step.as_dict() == theirs["memory"]
    assert ours.step.masters == 4 * ours.trained > 0


@pytest.mark.parametrize("method", ["mdpd", "full"])
def test_moments_of_eight_bits_are_planned_to_the_byte(tmp_path, capsys, method):
    pytest.importorskip("bitsandbytes")
    sections = {"distill": {"method": method, "reduction": 1}}
    ours, theirs = planned_and_measured(tmp_path / "8", "hf-vit", **sections, optim={"type": "adamw_8bit"})
    plain, _ = planned_and_measured(tmp_path / "32", "hf-vit", **sections)
    capsys.readouterr()
    assert ours.step.as_dict() == theirs["memory"]
    assert ours.step.transient == plain.step.transient and ours.step.optimiser < plain.step.optimiser


@pytest.mark.parametrize(
    "small_backbone, distill",
    [
        ("hf-dinov2", {"shallow": "auto", "deep": "auto"}),  # the split depends on numbers, and the step on the split
        ("mm-resnet", {"method": "full"}),
        ("mm-swin", {"norm_gradient": "local"}),
    ],
)
def test_hierarchical_and_automatic_ones_are_within_a_tenth(tmp_path, capsys, small_backbone, distill):
    ours, theirs = planned_and_measured(tmp_path, small_backbone, distill=distill)
    capsys.readouterr()
    assert ours.step.total == pytest.approx(theirs["memory"]["total"], rel=0.1)


@pytest.mark.parametrize("small_backbone, amp", [("hf-minilm", True), ("oc-text", False)])
def test_padded_texts_and_autocast_are_planned_to_the_byte(tmp_path, capsys, small_backbone, amp):
    source = {"type": "table", "path": str(text_table(tmp_path / "texts.csv"))}
    data = {"source": {**source, "text_column": "text", "label_column": "label"}}
    ours, theirs = planned_and_measured(
        tmp_path, small_backbone, data=data, train={"amp": amp}, optim={"accumulate": 2}
    )
    capsys.readouterr()
    assert ours.step.as_dict() == theirs["memory"]


def test_a_model_that_fits_nowhere_here_is_planned(tmp_path):
    # Fifty thousand million weights; a process that made them would be killed.
    sizes = {"hidden_size": 32768, "num_hidden_layers": 4, "num_attention_heads": 128, "intermediate_size": 131072}
    backbone = {"options": {"image_size": 32, "patch_size": 8, **sizes}}
    found = plan(load_config(write_config(tmp_path, backbone=backbone, distill={"reduction": 256})))
    assert found.weights > 190 * 2**30
    assert found.step.total < 0.02 * found.weights


def test_the_command_prints_and_writes_every_method(tmp_path, capsys):
    config, out = write_config(tmp_path), tmp_path / "plan.json"
    asked = ["--plan", "--methods", "mdpd", "linear", "--batch-size", "4", "--json", str(out)]
    assert main(["bench", str(config), *asked]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(out.read_text())["plans"]
    assert [r["method"] for r in rows] == ["mdpd", "linear"]
    for row in rows:
        assert row["batch_size"] == 4
        assert f"{row['training_state_bytes'] / 2**20:,.1f}" in printed
    assert rows[0]["training_state_bytes"] > rows[1]["training_state_bytes"]


def test_names_and_numbers_are_whole_on_a_terminal_of_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = write_config(tmp_path, backbone={"options": {"image_size": 32, "patch_size": 8, **sizes}})
    methods = ["lora_checkpointed", "mdpd_low_memory", "mdpd_low_rank", "full"]
    assert main(["bench", str(config), "--plan", "--methods", *methods]) == 0
    table = capsys.readouterr().out.split("MiB at")[0]
    assert "\N{HORIZONTAL ELLIPSIS}" not in table and all(f"{method} " in table for method in methods)


def test_weights_of_a_file_are_not_kept(tmp_path):
    folder = tmp_path / "weights"
    build_experiment(load_config(write_config(tmp_path))).adapter.write((folder.mkdir(), folder)[1])
    config = load_config(write_config(tmp_path, backbone={"pretrained": str(folder), "options": {}}))
    mode = Imagination()
    with imagined(mode):
        experiment = build_experiment(config, adopt=mode.adopt)
    assert all(isinstance(p, FakeTensor) for p in experiment.distiller.parameters())


def test_numbers_that_are_known_stay_known():
    with imagined(Imagination()):
        weight = torch.nn.Linear(4, 4).weight
        labels = torch.tensor([2, 0, 1])
        mask = torch.ones_like(weight, dtype=torch.bool)[:3].scatter(1, labels.unsqueeze(1), False)
        assert int(torch.arange(5).sum()) == 10
        assert mask.sum() == 9
        assert weight[:3][mask].shape == (9,)
        assert weight.nonzero().shape == (16, 2)  # as many as there could be
        assert weight.isfinite().all() and not weight.isnan().any()
    assert isinstance(weight, FakeTensor) and not isinstance(mask, FakeTensor)
