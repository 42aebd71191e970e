"""Language modelling from a configuration to an export that transformers reads."""

import json
import math

import pytest
import torch
from language import language_config
from running import trained, weights, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.planning.plan import plan, weight_bytes
from mdpd_plugins.registry import CapabilityError, ConfigError
from mdpd_plugins.training import load_config
from mdpd_plugins.training.experiment import build_experiment
from mdpd_plugins.training.train import dry_run


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def run(request, tmp_path_factory):
    """(config, work directory, summary) of a small run."""
    folder = tmp_path_factory.mktemp(request.param)
    config = language_config(folder, request.param)
    return config, folder / "work", trained(config, folder / "work")


def test_the_export_has_the_perplexity_of_the_run_in_transformers_alone(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, work, summary = run
    model = AutoModelForCausalLM.from_pretrained(work / "export").eval()
    AutoTokenizer.from_pretrained(work / "export")
    blocks = build_experiment(load_config(config)).val_loader.dataset.blocks.long()
    with torch.no_grad():
        losses = [model(input_ids=block[None], labels=block[None]).loss for block in blocks]
    nll = float(torch.stack(losses).mean())  # each block has as many tokens
    assert summary["metrics"]["backbone/perplexity"] == pytest.approx(math.exp(nll), rel=1e-4)
    assert summary["fading"]["outputs_equal"] and summary["fading"]["keys_equal"]


def test_eval_gives_the_perplexity_and_predict_refuses(run, tmp_path, capsys):
    config, work, summary = run
    export = str(work / "export")
    assert mdpd(["eval", export, str(config), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["metrics"]
    assert found == {k: pytest.approx(summary["metrics"][f"backbone/{k}"], rel=1e-5) for k in ("perplexity", "nll")}
    capsys.readouterr()
    assert mdpd(["predict", export, "a red circle"]) == 2
    assert "language model, which has no label to predict: measure its perplexity with" in capsys.readouterr().err


def test_an_export_of_the_checkpoint_is_the_runs(run, tmp_path):
    _, work, _ = run
    assert mdpd(["export", str(work), str(tmp_path / "again")]) == 0
    for name in ("model.safetensors", "mdpd.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (work / "export" / name).read_bytes()


def test_a_plan_is_what_a_dry_run_measures(run):
    config, _, _ = run
    planned, measured = plan(load_config(config)), dry_run(load_config(config))
    assert planned.step.as_dict() == measured["memory"]
    assert planned.weights == weight_bytes(build_experiment(load_config(config)))


@pytest.mark.parametrize("method", ["linear", "lora", "full", "mdpd_head"])
def test_other_methods_have_something_to_train_in_a_tied_model(tmp_path, method):
    config = language_config(tmp_path, data={"batch_size": 2, "max_length": 8}, train={"max_steps": 2})
    found = trained(config, tmp_path / method, **{"distill.method": method})
    assert found["parameters"]["backbone_trained"] and math.isfinite(found["metrics"]["backbone/perplexity"])


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    from mdpd_plugins.training import train

    config = language_config(tmp_path, train={"max_steps": 6, "checkpoint_every": 3})
    trained(config, tmp_path / "whole")
    (tmp_path / "part").mkdir()
    for name in ("iter_3.pth", "optimizer_3.pth"):
        (tmp_path / "part" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (tmp_path / "part" / "last_checkpoint").write_text(str(tmp_path / "part" / "iter_3.pth"))
    loaded = load_config(config)
    loaded.work_dir = str(tmp_path / "part")
    train(loaded, resume=True)
    whole, part = weights(tmp_path / "whole", 6), weights(tmp_path / "part", 6)
    assert all(torch.equal(part[key], value) for key, value in whole.items())


def test_kept_features_give_the_weights_of_fresh_ones(tmp_path):
    config = language_config(tmp_path, "llama", distill={"norm_gradient": "head", "shallow": [0], "deep": [-1]})
    for name, size in (("fresh", 0), ("kept", 64)):
        trained(config, tmp_path / name, **{"distill.cache_features": size})
    fresh, kept = weights(tmp_path / "fresh", 5), weights(tmp_path / "kept", 5)
    for key, value in fresh.items():
        torch.testing.assert_close(kept[key], value, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_task_and_backbone_must_both_model_language(tmp_path):
    config = language_config(tmp_path)
    with pytest.raises(ConfigError, match="not as a language model.*head='causal' go together"):
        build_experiment(load_config(config, {"backbone.options.head": "text"}))
    with pytest.raises(ConfigError, match="built as a language model, but the task is 'single'"):
        build_experiment(load_config(config, {"task.kind": None}))
    options = {"head": "causal", "tokenizer": "huggingface/minilm-l6", "num_hidden_layers": 2}
    sections = {"backbone": {"name": "huggingface/bert", "options": options}, "task": {"kind": "language"}}
    source = load_config(config).data.source.to_dict()
    bert = load_config(write_config(tmp_path / "bert", data={"source": source}, **sections))
    with pytest.raises(CapabilityError, match="reads the tokens that come after"):
        build_experiment(bert)
