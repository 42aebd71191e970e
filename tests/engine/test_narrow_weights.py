"""Backbones held in the type of their checkpoint, or another: what trains, what an export holds, what is refused."""

import copy
import json

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from checkpoints import ZOOS, built, checkpoint, files, trained
from small_zoo import batch_of, changed, inputs_of, labels_of, randomise, small, small_distiller, snapshot
from transformers import ViTConfig, ViTForImageClassification

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.engine import fade
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("key", ZOOS)
@pytest.mark.parametrize("stored, held", [("bfloat16", "auto"), ("bfloat16", "float32"), ("float32", "bfloat16")])
def test_an_export_has_the_checkpoints_type_and_the_very_values_that_training_did_not_change(
    key, stored, held, tmp_path
):
    before = files(checkpoint(tmp_path / "checkpoint", key, stored))
    adapter = built(tmp_path / "checkpoint", key, held)
    assert adapter.dtype == TYPES[stored if held == "auto" else held]
    distiller, _ = trained(adapter)
    names = set(distiller.trainable)
    _, report = fade(distiller)
    assert report.exported_in == stored
    adapter.export(tmp_path / "export")
    after = files(tmp_path / "export")
    assert after.keys() == before.keys()
    assert {v.dtype for v in after.values() if v.is_floating_point()} == {TYPES[stored]}
    differing = {k for k, v in before.items() if not torch.equal(v, after[k])}
    moved = changed(snapshot(built(tmp_path / "checkpoint", key).model), adapter.model)
    # transformers writes some keys as they were called in older versions; so many, and no other, differ.
    assert set() < moved <= names and len(differing) == len(moved)
    assert key[:2] == "hf" or {k.partition(":")[2] for k in differing} == moved
    again = adapter.load_exported(tmp_path / "export")
    with torch.no_grad():
        ours, theirs = (adapter.around(m.float()).forward(adapter.example_inputs()) for m in (adapter.model, again))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("key", ["hf-vit", "hf-gpt2", "mm-resnet", "oc-image"])
@pytest.mark.parametrize("stored, held", [("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_a_low_rank_update_is_added_in_float32_to_the_checkpoints_own_weight(key, stored, held, tmp_path):
    before = files(checkpoint(tmp_path / "checkpoint", key, stored))
    adapter = built(tmp_path / "checkpoint", key, held)
    distiller, _ = trained(adapter, method="mdpd_low_rank", rank=2)
    plain = set(distiller.trained.original_keys)
    update = {}
    for name, layer in adapter.model.named_modules():
        if hasattr(layer, "lora_A") and isinstance(layer.get_base_layer(), torch.nn.Linear):
            a, b = (distiller.masters.of(m["default"].weight).detach() for m in (layer.lora_A, layer.lora_B))
            update[f"{name}.weight"] = layer.scaling["default"] * (b @ a)
    names = {n for n in distiller.trainable if ".lora_" not in n}
    _, report = fade(distiller)
    assert report.merged and set(adapter.model.state_dict()) == plain
    adapter.export(tmp_path / "export")
    source, found = built(tmp_path / "checkpoint", key).model.state_dict(), adapter.model.state_dict()
    moved = changed(source, adapter.model)
    assert moved - names and len(moved) == sum(
        not torch.equal(v, before[k]) for k, v in files(tmp_path / "export").items()
    )
    for k in update.keys() & source.keys():
        assert torch.equal(found[k], (source[k].float() + update[k]).to(source[k].dtype)), k


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "hf-llama", "mm-vit", "mm-resnet", "oc-image", "oc-text"])
@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.05), ("float16", 0.01)])
def test_losses_follow_those_of_float32(key, dtype, tolerance):
    def losses(held):
        name, options = ZOOS[key]
        adapter = build_backbone(name, pretrained=None, num_classes=5, dtype=held, **options)
        randomise(adapter.model)
        distiller, found = trained(adapter, steps=1)
        return {k: float(v) for k, v in found[0].items() if k != "loss"}

    wide, narrow = losses("float32"), losses(dtype)
    assert wide.keys() == narrow.keys()
    for name, value in wide.items():
        assert narrow[name] == pytest.approx(value, rel=tolerance), name


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-vit", "mm-resnet", "mm-swin", "oc-image", "oc-text"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norm_gradients_are_those_of_plain_autograd_in_the_same_type(key, dtype):
    adapter = small(key, dtype=dtype)
    plain = copy.deepcopy(adapter)
    distiller, _ = small_distiller(adapter, method="mdpd", logits_distillation=False)
    distiller.backward(inputs_of(adapter), labels_of())
    F.cross_entropy(plain.forward(inputs_of(adapter)).float(), labels_of()).backward()
    theirs = dict(plain.model.named_parameters())
    norms = set(adapter.norm_parameters())
    assert norms <= set(distiller.trainable)
    for name, parameter in distiller.trainable.items():
        master = distiller.masters.of(parameter)
        assert master.dtype == torch.float32 and parameter.grad is None
        if theirs[name].grad is None:  # of a tower's unused part
            assert master.grad is None or not master.grad.any()
        else:
            assert torch.equal(master.grad, theirs[name].grad.float()), name


def test_steps_too_small_for_the_type_are_not_lost():
    adapter = small("hf-vit", dtype="bfloat16")
    student = mdpd.distill(adapter, steps=40, method="norm")
    optimizer = torch.optim.SGD(student.parameter_groups(scale=1.0), lr=1.0)
    for group in optimizer.param_groups:
        group.update(lr=1e-4, weight_decay=0.0)
    before = {n: p.clone() for n, p in student.trainable.items()}
    for _ in range(40):
        student.backward(inputs_of(adapter), labels_of())
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)  # 40 steps of 1e-4: each below half of a rounding at one
        optimizer.step()
        optimizer.zero_grad()
    fade(student)
    moved = {
        n: float((p.float() - before[n].float()).abs().max())
        for n, p in dict(adapter.parameters()).items()
        if n in before
    }
    assert all(3e-3 < m < 8e-3 for m in moved.values()), moved


def test_evaluation_sees_the_last_step():
    adapter = small("mm-vit", dtype="bfloat16")
    distiller, optim = small_distiller(adapter)
    distiller.train_step(batch_of(adapter), optim)
    distiller.masters.publish()
    with torch.no_grad(), distiller.plain_flags():
        direct = adapter.forward(inputs_of(adapter)).float()
    before = distiller(inputs_of(adapter))["backbone"]
    assert before.dtype == torch.float32 and torch.equal(before, direct)
    for _ in range(3):
        distiller.train_step(batch_of(adapter), optim)
    assert not torch.equal(distiller(inputs_of(adapter))["backbone"], before)


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LIVE = {
    "transformers": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    ),
    "timm": lambda: timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, img_size=32),
    "timm swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(2, 2), embed_dim=16, num_heads=(2, 2), img_size=64, window_size=4
    ),
    "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=5, width_mult=0.25),
}


@pytest.mark.parametrize("kind", LIVE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["mdpd", "mdpd_low_rank"])
def test_a_live_model_trains_in_its_own_type_and_closing_leaves_it_as_it_came(kind, dtype, method):
    model = LIVE[kind]().to(dtype)
    before = snapshot(model)
    adapter = mdpd.adapt(
        model,
        num_classes=5,
        example_inputs=torch.randn(2, 3, *([64] * 2 if "swin" in kind or kind == "torchvision" else [32] * 2)),
    )
    started = snapshot(model)
    images = torch.randn(4, *adapter.example_inputs(1)["image"].shape[1:], generator=torch.Generator().manual_seed(0))
    with mdpd.distill(adapter, steps=2, method=method, reduction=4, backbone_every=1) as student:
        optimizer = torch.optim.AdamW(student.parameter_groups())
        student.backward(images, labels_of())
        optimizer.step()
    assert not changed(started, model)
    student = mdpd.distill(adapter, steps=2, method=method, reduction=4, backbone_every=1)
    names = set(student.trainable)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    student.backward(images, labels_of())
    optimizer.step()
    plain, report = mdpd.fade(student)
    assert plain is model and {p.dtype for p in model.parameters()} == {dtype}
    assert report.exported_in == report.trained_in == str(dtype).removeprefix("torch.")
    assert set(before) == set(model.state_dict())
    if method == "mdpd":
        assert set() < changed(started, model) <= names


def test_a_checkpoint_that_changed_since_training_began_is_refused_before_anything_changes(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "float32")
    adapter = built(folder, "hf-vit", "bfloat16")
    distiller, _ = trained(adapter)
    other = build_backbone(ZOOS["hf-vit"][0], pretrained=None, num_classes=5, **ZOOS["hf-vit"][1])
    randomise(other.model, seed=1)
    other.export(folder)
    distiller.masters.publish()
    before = snapshot(distiller)
    with pytest.raises(CheckpointError, match="vit-base.* has changed since training began: .* put the right one back"):
        fade(distiller)
    assert not changed(before, distiller)


def test_words_that_name_no_type_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"backbone\.dtype='bf16' does not exist: .*bfloat16"):
        build_backbone("huggingface/vit-base-patch16-224", pretrained=None, num_classes=2, dtype="bf16")


def test_a_type_that_the_files_do_not_have_in_common_is_widened(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = checkpoint(tmp_path / "checkpoint", "hf-vit", "bfloat16")
    state = load_file(folder / "model.safetensors")
    state["vit.layernorm.weight"] = state["vit.layernorm.weight"].float() + 1e-4
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"  # and is not believed
    adapter = built(folder, "hf-vit")
    assert adapter.dtype == torch.float32
    assert torch.equal(adapter.model.vit.layernorm.weight, state["vit.layernorm.weight"])


def test_a_model_that_runs_in_no_such_type_is_refused_by_name():
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torchvision.models.resnet18(num_classes=3)

        def forward(self, x):
            return self.inner(x) * torch.from_numpy(x.numpy()).mean()  # numpy has no such type

    with pytest.raises(CapabilityError, match=r"does not run with weights of torch\.bfloat16 .*float32 always runs"):
        mdpd.adapt(Wide().to(torch.bfloat16), example_inputs=torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("key", ["hf-vit", "mm-vit", "oc-image", "hf-minilm"])
@pytest.mark.parametrize("method", ["mdpd_head", "linear"])
def test_kept_features_of_a_narrow_model_serve_it(key, method):
    losses = []
    for size in (0, 64):
        adapter = small(key, dtype="bfloat16")
        distiller, optim = small_distiller(adapter, method=method, cache_features=size)
        batch = {**batch_of(adapter), **({"samples": torch.arange(4)} if size else {})}
        losses.append([{k: float(v) for k, v in distiller.train_step(batch, optim).items()} for _ in range(3)])
    for plain, kept in zip(*losses, strict=True):
        assert kept == pytest.approx(plain, rel=0.02)
