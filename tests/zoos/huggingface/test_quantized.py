"""Checkpoints that bitsandbytes has quantised, and exports that stay quantised, as transformers saves them."""

import json

import pytest
import torch
import transformers
from checkpoints import ZOOS, built, checkpoint, trained
from running import trained as run
from running import write_config
from small_zoo import BACKBONES, small

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.quantized import quantized_layers
from mdpd_plugins.engine import fade
from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError
from mdpd_plugins.training import export_network, load_config

# bitsandbytes packs whole blocks of 64 for inference on some processors.
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
KINDS = ("int8", "nf4")
CLASSES = {
    "hf-vit": "AutoModelForImageClassification",
    "hf-llama": "AutoModelForCausalLM",
    "hf-gpt2": "AutoModelForCausalLM",
}


@pytest.fixture(autouse=True)
def wider(monkeypatch):
    for key in CLASSES:
        sizes = {"n_embd": 64} if key == "hf-gpt2" else SIZES
        monkeypatch.setitem(ZOOS, key, (ZOOS[key][0], {**ZOOS[key][1], **sizes}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["mdpd", "mdpd_low_rank"])
@pytest.mark.parametrize("key", CLASSES)
def test_an_export_that_stays_quantised_loads_in_transformers_and_trains_again(key, method, kind, tmp_path):
    checkpoint(tmp_path / "checkpoint", key, "float32")
    adapter = built(tmp_path / "checkpoint", key, quantization=kind)
    held = {n: {k: v.clone() for k, v in q.state_dict().items()} for n, q in quantized_layers(adapter.model)}
    distiller, _ = trained(adapter, method=method)
    model, report = fade(distiller, quantized=True)
    assert report.exported_quantized and report.keys_equal and report.quantization == kind
    assert report.outputs_equal == (method == "mdpd")  # nothing is merged, so the very same weights
    adapter.export(tmp_path / "export")
    if method == "mdpd":  # its scales too, which the library rounds at a first inference on some processors
        theirs = getattr(transformers, CLASSES[key]).from_pretrained(tmp_path / "export").state_dict()
        names = {"packed": "weight", "scale": "SCB" if kind == "int8" else "weight.absmax"}
        names |= {} if kind == "int8" else {"scale_scale": "weight.nested_absmax"}
        for layer, parts in held.items():
            assert all(torch.equal(theirs[f"{layer}.{names[part]}"], parts[part]) for part in names), layer
    inputs = adapter.example_inputs()
    again = getattr(transformers, CLASSES[key]).from_pretrained(tmp_path / "export")
    with torch.no_grad():
        ours, theirs = adapter.forward(inputs), adapter.around(again).forward(inputs)
    assert torch.equal(ours, theirs)
    # And it is a checkpoint to begin with.
    other = built(tmp_path / "export", key)
    assert other.held_quantized() == kind and {n for n, _ in quantized_layers(other.model)} == held.keys()
    with torch.no_grad():
        assert (other.forward(inputs) - ours).abs().max() < 0.05 * ours.abs().max()
    distiller, _ = trained(other)
    _, report = fade(distiller)
    assert report.exported_quantized
    other.export(tmp_path / "second")
    assert json.loads((tmp_path / "second" / "config.json").read_text())["quantization_config"]["quant_method"]


def test_a_checkpoint_that_was_quantised_in_another_way_stays_in_that_one(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "bfloat16")
    about = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="fp4",
        bnb_4bit_use_double_quant=False,
        llm_int8_skip_modules=["classifier"],
    )
    auto = transformers.AutoModelForImageClassification
    auto.from_pretrained(folder, quantization_config=about).save_pretrained(tmp_path / "theirs")
    adapter = built(tmp_path / "theirs", "hf-vit")
    assert adapter.held_quantized() == "fp4" and adapter.dtype == torch.bfloat16
    theirs = auto.from_pretrained(tmp_path / "theirs").dequantize()
    assert all(torch.equal(theirs.get_submodule(n).weight, q.weight) for n, q in quantized_layers(adapter.model))
    distiller, _ = trained(adapter, method="mdpd_low_rank")
    fade(distiller)
    adapter.export(tmp_path / "export")
    said = json.loads((tmp_path / "export" / "config.json").read_text())["quantization_config"]
    assert said["bnb_4bit_quant_type"] == "fp4" and not said["bnb_4bit_use_double_quant"]
    with torch.no_grad():
        again = adapter.around(auto.from_pretrained(tmp_path / "export")).forward(adapter.example_inputs())
        assert torch.equal(again, adapter.forward(adapter.example_inputs()))


def test_a_run_leaves_its_export_quantised_if_asked_and_it_predicts(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "float32")
    held = {"quantization": "nf4", "quantized_export": True, "options": {}}
    config = write_config(tmp_path, backbone={"name": ZOOS["hf-vit"][0], "pretrained": str(folder), **held})
    summary = run(config, tmp_path / "run")
    assert summary["fading"]["exported_quantized"]
    exported = load_export(tmp_path / "run" / "export")
    assert "Linear4bit" in {type(m).__name__ for m in exported.model.modules()}
    measured = evaluate_export(exported, load_config(config))
    assert measured == {k.partition("/")[2]: v for k, v in summary["metrics"].items() if k.startswith("backbone/")}
    with pytest.raises(CapabilityError, match="is quantised, and network.onnx holds ordinary weights"):
        export_network(tmp_path / "run", tmp_path / "onnx", kind="onnx", keep_side=False)
    assert not (tmp_path / "onnx").exists()
    size = (tmp_path / "run" / "export" / "model.safetensors").stat().st_size
    assert size < 0.6 * (folder / "model.safetensors").stat().st_size


def test_what_cannot_stay_quantised_is_said_before_anything_is_trained(tmp_path):
    name, options = BACKBONES["mm-vit"]
    held = {"name": name, "pretrained": None, "options": options, "quantized_export": True}
    for more, said in (
        ({"quantization": "nf4"}, "mmpretrain has no files for quantised weights"),
        ({}, "not held quant"),
    ):
        config = write_config(tmp_path / said[:4], "mm-vit", backbone={**held, **more})
        with pytest.raises(CapabilityError, match=said):
            run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    distiller, _ = trained(small("hf-vit"))
    with pytest.raises(CapabilityError, match="set backbone.quantization, too"):
        fade(distiller, quantized=True)


def test_other_libraries_quantisation_and_a_second_one_are_refused_by_name(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "float32")
    adapter = built(folder, "hf-vit", quantization="int8")
    distiller, _ = trained(adapter)
    fade(distiller, quantized=True)
    adapter.export(tmp_path / "small")
    with pytest.raises(ConfigError, match=r"is quantised already \(int8\)"):
        built(tmp_path / "small", "hf-vit", quantization="nf4")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"weights that gptq has quantised, and only bitsandbytes'"):
        build_backbone(ZOOS["hf-vit"][0], pretrained=str(folder), num_classes=5)
