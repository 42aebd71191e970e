"""peft in transformers' Trainer beside our engine: what a rival trains, what it is given, what is counted."""

import json

import pytest
import torch
from running import text_table, write_config
from transformers import AutoModelForSequenceClassification, ViTForImageClassification

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.training import load_config
from mdpd_plugins.training.experiment import build_experiment
from tools.compare.measured_pages import END, start_mark
from tools.compare.outside.command import main
from tools.compare.outside.ours import Ours
from tools.compare.outside.page import TOOL
from tools.compare.outside.page import main as write_page
from tools.compare.outside.prepared import MODEL, TRAINING, prepare
from tools.compare.outside.rival import RANK, Rival

STEPS = 3
OURS = {"train.max_steps": STEPS, "distill.method": "lora_checkpointed"}


def config_of(kind, folder):
    if kind == "hf-vit":
        return write_config(folder)
    table = {"type": "table", "path": str(text_table(folder.parent / "rows.csv")), "text_column": "text"}
    data = {"source": {**table, "label_column": "label"}, "max_length": 16}
    return write_config(folder, kind, data=data)


@pytest.fixture(scope="module", params=["hf-vit", "hf-minilm"])
def prepared(request, tmp_path_factory):
    """(kind, config, folder, task) of a small model made ready for a rival."""
    folder = tmp_path_factory.mktemp("outside")
    config = config_of(request.param, folder / "config")
    task = prepare(load_config(config, OURS), folder)
    return request.param, config, folder, task


@pytest.fixture(scope="module")
def rivals(prepared):
    """Rival -> (its worker, what it answered when it was built)."""
    made = {}
    for name in ("lora", "lora_all", "qlora"):
        worker = Rival()
        made[name] = worker, worker.build(str(prepared[2]), name, "cpu")
    return made


@pytest.fixture(scope="module")
def ours(prepared):
    worker = Ours()
    return worker, worker.build(str(prepared[1]), OURS, "cpu")


def test_a_rival_trains_pefts_updates_and_the_output_layer(prepared, rivals, ours):
    kind, _, folder, task = prepared
    auto = ViTForImageClassification if kind == "hf-vit" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder / MODEL)
    heads = [model.classifier] if kind == "hf-vit" else [model.classifier, model.bert.pooler]
    head = sum(p.numel() for part in heads for p in part.parameters())
    blocks = model.config.num_hidden_layers
    width, inner = model.config.hidden_size, model.config.intermediate_size
    query_value = blocks * 2 * RANK * 2 * width
    everywhere = blocks * RANK * (4 * 2 * width + 2 * (width + inner))  # query, key, value, output; two of the MLP
    for name, updates in (("lora", query_value), ("lora_all", everywhere), ("qlora", everywhere)):
        built = rivals[name][1]
        assert built["low_rank_parameters"] == updates, name
        assert built["trainable_parameters"] == updates + head, name
    assert rivals["lora"][1]["low_rank_layers"] == 2 * blocks
    # What our engine's method of that name trains, pooler included.
    assert rivals["lora"][1]["trainable_parameters"] == ours[1]["trainable_parameters"]


def test_both_sides_begin_with_one_model_and_get_the_same_batches(prepared, rivals):
    _, config, folder, _ = prepared
    experiment = build_experiment(load_config(config, {**OURS, "distill.method": "linear"}))
    given = torch.load(folder / TRAINING, weights_only=True)
    assert len(given) == STEPS
    model = rivals["lora"][0].model.eval()
    for batch, theirs in zip(experiment.train_loader, given, strict=False):
        assert torch.equal(batch["labels"], theirs["labels"])
        with torch.no_grad():
            found = model(**{k: v for k, v in theirs.items() if k != "labels"}).logits
            torch.testing.assert_close(found, experiment.adapter.forward(batch["inputs"]))


def test_bytes_are_counted_alike_and_four_bits_are_less(prepared, rivals, ours):
    memory = {name: worker.memory() for name, (worker, _) in rivals.items()}
    memory["ours"] = ours[0].memory()
    for found in memory.values():
        assert found["total"] >= found["optimiser"] + found["transient"] > 0
    # The same parameters learn, and AdamW keeps two moments and a counter of each.
    trained = {name: built["trainable_parameters"] for name, (_, built) in rivals.items()}
    for name, count in trained.items():
        assert 0 <= memory[name]["optimiser"] - 8 * count < 1000, name
    assert memory["lora_all"]["optimiser"] > memory["lora"]["optimiser"]
    # With recomputation of blocks both hold about the same: graphs of one block, and a state for each.
    assert 0.3 < memory["ours"]["transient"] / memory["lora"]["transient"] < 3
    weights = {name: built["weight_bytes"] for name, (_, built) in rivals.items()}
    assert weights["qlora"] < weights["lora_all"] and ours[1]["weight_bytes"] < weights["lora_all"]


def test_a_rival_learns_and_counting_changes_nothing(prepared, rivals):
    worker = rivals["lora"][0]
    before = {n: p.detach().clone() for n, p in worker.model.named_parameters()}
    worker.memory()
    assert worker.cycle()["seconds"] > 0
    assert all(torch.equal(before[n], p) for n, p in worker.model.named_parameters())
    worker.train()
    changed = {n for n, p in worker.model.named_parameters() if not torch.equal(before[n], p)}
    assert changed and all(".lora_" in n or ".modules_to_save." in n for n in changed)


@pytest.mark.slow
def test_the_command_trains_measures_and_prints(tmp_path, capsys, monkeypatch):
    out = tmp_path / "found.json"
    asked = ["outside", str(write_config(tmp_path)), "--rivals", "lora", "--methods", "mdpd", "--steps", str(STEPS)]
    monkeypatch.setattr("sys.argv", [*asked, "--rounds", "1", "--json", str(out)])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "peft lora" in printed and "mdpd" in printed
    found = json.loads(out.read_text())
    assert [row["name"] for row in found["results"]] == ["peft lora", "mdpd"] and found["steps"] == STEPS
    for row in found["results"]:
        assert row["memory"]["total"] > 0 and row["resident"]["peak"] > row["resident"]["libraries"]
        assert row["loss"] > 0 and 0 <= row["metrics"][row["metric"]] <= 1 and row["step_seconds"]["median"] > 0
    assert found["results"][0]["step_ratio_to_first"] == 1.0
    page = tmp_path / "memory.md"
    page.write_text("mine\n")
    monkeypatch.setattr("sys.argv", ["outside-page", str(page), str(out)])
    assert write_page() == 2 and page.read_text() == "mine\n"
    page.write_text(f"before\n{start_mark(TOOL)}\nold\n{END}\nafter\n")
    assert write_page() == 0
    text = page.read_text()
    assert "old" not in text and "| peft lora |" in text and "--rivals lora --methods mdpd --steps 3" in text


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--rivals", "qlra"], "'qlora'"),
        (["--methods", "mdpdd"], "'mdpd'"),
        (["--methods", "mdpd_coach"], "two stages"),
        (["--steps", "0"], "at least one"),
        (["--json", "none/out.json"], "does not exist"),
    ],
)
def test_what_cannot_be_compared_is_said_before_the_work(tmp_path, capsys, monkeypatch, wrong, said):
    monkeypatch.setattr("sys.argv", ["outside", str(write_config(tmp_path)), *wrong])
    assert main() == 2
    assert said in capsys.readouterr().err


def test_another_librarys_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no transformers model"):
        prepare(load_config(write_config(tmp_path, "mm-vit"), OURS), tmp_path)
