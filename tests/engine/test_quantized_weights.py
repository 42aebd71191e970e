"""Backbones whose frozen linear layers are held in a byte or half a byte a weight."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from checkpoints import ZOOS, built, checkpoint, files, trained
from running import forget, main, same, weights, write_config
from running import trained as run
from small_zoo import BACKBONES, changed, inputs_of, labels_of, randomise, small, small_distiller, snapshot
from torch import nn
from transformers.pytorch_utils import Conv1D

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.quantized import put_in, quantize_blocks, quantized_layers
from mdpd_plugins.adapters.quantized_attention import QuantizedAttention
from mdpd_plugins.adapters.quantized_linear import QuantizedLinear
from mdpd_plugins.engine import fade
from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError, MissingDependencyError
from mdpd_plugins.training import export_network, load_config
from mdpd_plugins.training.train import dry_run

KINDS = ("int8", "nf4")
HELD = ["hf-vit", "hf-minilm", "hf-gpt2", "mm-vit", "mm-swin", "oc-image", "oc-text"]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 1000}
# Bytes of a weight (bitsandbytes: a 4-byte scale for each output; a byte for 64 weights and 4 for 256 of those).
BYTES = {"int8": 1.0, "nf4": 0.5}


def held(key, kind, dtype="auto"):
    """A small backbone of drawn weights, which are then quantised."""
    if key == "hf-gpt2":  # its layers are transformers' `Conv1D`
        adapter = build_backbone("huggingface/gpt2", pretrained=None, num_classes=5, dtype=dtype, **GPT2)
        randomise(adapter.model)
    else:
        adapter = small(key, dtype=dtype)
    quantize_blocks(adapter.model, dict(adapter.named_blocks), kind, name=adapter.name)
    return adapter


def in_a_file(tensor):
    """Whether a tensor's numbers lie in a file that is mapped into memory; None where the system does not say."""
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(x, 16) for x in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return len(line.split()) > 5 and "heap" not in line
    raise AssertionError("it lies nowhere")


def with_plain_layers(adapter):
    """A copy with ordinary linear layers of the numbers that the quantised ones work with."""
    plain = copy.deepcopy(adapter)
    put_in(plain.model, {layer: layer.plain() for _, layer in quantized_layers(plain.model)})
    assert not any(quantized_layers(plain.model))
    return plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("key", HELD)
def test_the_linear_layers_of_all_blocks_are_small_and_compute_what_bitsandbytes_numbers_do(key, dtype, kind):
    adapter = held(key, kind, dtype)
    layers = dict(quantized_layers(adapter.model))
    for _, block in adapter.named_blocks:
        assert any(isinstance(m, QuantizedLinear) for m in block.modules())
        for module in block.modules():
            whole = isinstance(module, (nn.Linear, nn.MultiheadAttention, Conv1D))
            assert not whole or isinstance(module, (QuantizedLinear, QuantizedAttention)), module
    for layer in layers.values():
        assert layer.packed.nbytes == BYTES[kind] * layer.in_features * layer.out_features
        assert layer.weight.dtype == adapter.dtype and not layer.packed.requires_grad
    plain = with_plain_layers(adapter)
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs_of(adapter)), plain.forward(inputs_of(adapter)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "hf-gpt2", "mm-vit", "mm-swin", "oc-image", "oc-text"])
def test_norm_gradients_are_those_of_plain_autograd_over_the_same_numbers(key, recompute, kind):
    adapter = held(key, kind)
    plain = with_plain_layers(adapter)
    settings = {"method": "mdpd", "logits_distillation": False, "recompute": recompute}
    distiller, _ = small_distiller(adapter, **settings)
    distiller.backward(inputs_of(adapter), labels_of())
    F.cross_entropy(plain.forward(inputs_of(adapter)), labels_of()).backward()
    theirs = dict(plain.model.named_parameters())
    for name, parameter in distiller.trainable.items():
        if theirs[name].grad is None:  # of a tower's unused part
            assert parameter.grad is None or not parameter.grad.any()
        else:
            assert torch.equal(parameter.grad, theirs[name].grad), name


@pytest.mark.parametrize("method", ["norm", "lora"])
@pytest.mark.parametrize("key", ["oc-image", "hf-gpt2", "mm-vit"])
def test_no_weight_is_held_for_a_backward_where_blocks_are_not_recomputed(key, method):
    adapter = held(key, "nf4")
    distiller, _ = small_distiller(adapter, method=method, recompute=False)
    sizes = {(q.out_features, q.in_features) for _, q in quantized_layers(adapter.model)}
    seen = []

    def look(tensor):
        seen.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        loss = distiller.adapter.forward(inputs_of(adapter)).sum()
    assert loss.requires_grad and seen and not {*seen} & {*sizes, *((b, a) for a, b in sizes)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored, held", [("float32", "auto"), ("bfloat16", "auto"), ("float32", "bfloat16")])
@pytest.mark.parametrize(
    "key", ["hf-vit", "hf-minilm", "hf-llama", "hf-gpt2", "mm-vit", "mm-swin", "oc-image", "oc-text"]
)
def test_an_export_has_the_checkpoints_own_weights_and_what_was_trained(key, stored, held, kind, tmp_path):
    before = files(checkpoint(tmp_path / "checkpoint", key, stored))
    adapter = built(tmp_path / "checkpoint", key, held, quantization=kind)
    distiller, _ = trained(adapter)
    names = set(distiller.trainable)
    learned = {n: distiller.masters.of(p).detach().clone() for n, p in distiller.trainable.items()}
    _, report = fade(distiller)
    assert report.quantization == kind and report.keys_equal and not any(quantized_layers(adapter.model))
    assert 0 < report.largest_difference < report.largest_output
    adapter.export(tmp_path / "export")
    after = files(tmp_path / "export")
    assert {k: (v.dtype, v.shape) for k, v in after.items()} == {k: (v.dtype, v.shape) for k, v in before.items()}
    source = built(tmp_path / "checkpoint", key).model
    moved = changed(snapshot(source), adapter.model)
    assert set() < moved <= names
    assert sum(not torch.equal(v, after[k]) for k, v in before.items()) == len(moved)
    found = dict(adapter.model.named_parameters())
    assert all(torch.equal(found[n], learned[n].to(found[n].dtype)) for n in names)
    assert {n: p.requires_grad for n, p in found.items()} == {n: p.requires_grad for n, p in source.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["hf-vit", "mm-vit", "oc-image", "hf-llama", "hf-gpt2"])
def test_low_rank_updates_learn_on_quantised_weights_and_are_merged_into_the_checkpoints_own(key, kind, tmp_path):
    checkpoint(tmp_path / "checkpoint", key, "float32")
    adapter = built(tmp_path / "checkpoint", key, quantization=kind)
    distiller, _ = trained(adapter, method="mdpd_low_rank", rank=2)
    update = {}
    for name, layer in adapter.model.named_modules():
        base = layer.get_base_layer() if hasattr(layer, "lora_A") else None
        if isinstance(base, (QuantizedLinear, QuantizedAttention)):
            a, b = (m["default"].weight.detach() for m in (layer.lora_A, layer.lora_B))
            weight = "in_proj_weight" if isinstance(base, QuantizedAttention) else "weight"
            delta = layer.scaling["default"] * (b @ a)
            own = name.replace(".base_layer", "")
            update[f"{own}.{weight}"] = delta.T if key == "hf-gpt2" else delta
    assert len(update) == len(list(quantized_layers(adapter.model)))
    _, report = fade(distiller)
    assert report.merged and report.keys_equal
    source, found = built(tmp_path / "checkpoint", key).model.state_dict(), adapter.model.state_dict()
    assert source.keys() == found.keys()
    for name, delta in update.items():
        assert delta.any() and torch.equal(found[name], source[name] + delta), name
        assert in_a_file(found[name]) is not False  # they may be more than there is room for in memory


@pytest.mark.parametrize("method", ["ladder", "linear", "lora", "norm", "mdpd_head", "mdpd"])
def test_every_method_that_leaves_linear_layers_frozen_learns_on_them(method):
    adapter = held("hf-vit", "nf4")
    packed = {n: q.packed.clone() for n, q in quantized_layers(adapter.model)}
    distiller, losses = trained(adapter, method=method)
    assert all(bool(torch.isfinite(v)) for found in losses for v in found.values())
    after = [q.packed for _, q in quantized_layers(adapter.model)]
    assert packed and all(torch.equal(a, b) for a, b in zip(packed.values(), after, strict=True))


def test_a_random_initialisation_keeps_the_numbers_it_worked_with():
    adapter = held("hf-vit", "nf4")
    worked = {n: q.weight for n, q in quantized_layers(adapter.model)}
    distiller, _ = trained(adapter)
    model, report = fade(distiller)
    assert report.quantization == "nf4" and report.largest_difference == 0 and report.outputs_equal
    assert all(torch.equal(model.get_submodule(n).weight, w) for n, w in worked.items())


def test_a_checkpoint_that_changed_in_a_quantised_layer_is_refused_before_anything_changes(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "float32")
    adapter = built(folder, "hf-vit", quantization="int8")
    distiller, _ = trained(adapter)
    name, _ = next(quantized_layers(adapter.model))
    other = built(folder, "hf-vit")
    with torch.no_grad():
        other.model.get_submodule(name).weight[0, 0] += 1
    other.export(folder)
    before = snapshot(distiller)
    with pytest.raises(CheckpointError, match=f"has changed since training began: {name} is not what was trained"):
        fade(distiller)
    assert not changed(before, distiller) and any(quantized_layers(adapter.model))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "small_backbone, method", [("hf-vit", "mdpd_low_rank"), ("mm-vit", "mdpd"), ("oc-image", "ladder")]
)
def test_a_plan_of_quantised_weights_equals_what_is_then_measured(tmp_path, capsys, small_backbone, method, kind):
    name, options = BACKBONES[small_backbone]
    backbone = {"name": name, "pretrained": None, "options": options, "quantization": kind}
    path = write_config(tmp_path, small_backbone, backbone=backbone, distill={"method": method})
    theirs = dry_run(load_config(path))
    ours = plan(load_config(path))
    capsys.readouterr()
    assert ours.weights == theirs["weights"] > 0
    assert ours.step.as_dict() == theirs["memory"]
    assert ours.types[{"int8": "int8", "nf4": "uint8"}[kind]] > 0


@pytest.mark.parametrize("method", ["mdpd_low_rank", "mdpd_coach_low_rank"])
def test_a_run_measures_what_it_exports_and_resumes_bit_for_bit(method, tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "float32")
    backbone = {"name": ZOOS["hf-vit"][0], "pretrained": str(folder), "quantization": "nf4", "options": {}}
    coach = {"coach": {"max_epochs": 1}} if "coach" in method else {}
    config = write_config(
        tmp_path,
        backbone=backbone,
        distill={"method": method},
        train={"max_steps": 6, "checkpoint_every": 3},
        **coach,
    )
    summary = run(config, tmp_path / "run")
    assert summary["quantized_metrics"].keys() <= summary["metrics"].keys()
    assert summary["fading"]["quantization"] == "nf4"
    exported = load_export(tmp_path / "run" / "export")
    measured = evaluate_export(exported, load_config(config))
    assert measured == {k.partition("/")[2]: v for k, v in summary["metrics"].items() if k.startswith("backbone/")}
    # With its side network, too: what is measured is the export, with the checkpoint's own weights.
    kept = export_network(tmp_path / "run", tmp_path / "kept", kind="torch", keep_side=True)
    assert load_export(kept).record.metrics == {
        f"side/{k}": v for k, v in evaluate_export(load_export(kept), load_config(config)).items()
    }
    whole = weights(tmp_path / "run", 6)
    assert not [k for k in whole if "packed" in k]  # what is frozen lies in the checkpoint
    run(config, tmp_path / "part")
    forget(tmp_path / "part", 6)
    assert main([config, "--work-dir", tmp_path / "part", "--resume"]) == 0
    assert same(weights(tmp_path / "part", 6), whole)


def test_what_cannot_be_quantised_is_refused(monkeypatch):
    name, options = BACKBONES["hf-vit"]
    with pytest.raises(ConfigError, match=r"backbone\.quantization='int4' does not exist: .*int8"):
        build_backbone(name, pretrained=None, num_classes=5, quantization="int4", **options)
    convolutions, few = BACKBONES["mm-resnet"]
    with pytest.raises(CapabilityError, match=r"no linear layers in its blocks .*quantization='none'"):
        build_backbone(convolutions, pretrained=None, num_classes=5, quantization="nf4", **few)
    with pytest.raises(ConfigError, match=r"held quantised, and distill\.method='full' trains every weight"):
        small_distiller(held("hf-vit", "int8"), method="full")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(MissingDependencyError, match=r"need bitsandbytes: pip install 'mdpd-plugins\[quantization\]'"):
        build_backbone(name, pretrained=None, num_classes=5, quantization="nf4", **options)
