"""What each mode trains, and that it trains nothing else, bit for bit."""

import re

import pytest
import small_zoo
import torch

from mdpd_plugins.engine import METHODS, Distiller

STEPS = 3


# Spelled out again, not taken from the adapter: how each model names its norms and its head.
NORM = {
    "hf-vit": r"layernorm",
    "hf-dinov2": r"norm",
    "hf-minilm": r"LayerNorm",
    "mm-vit": r"\.ln\d",
    "mm-deit": r"\.ln\d",
    "mm-resnet": r"(\.bn\d|downsample\.1)\.(weight|bias)",
    "mm-swin": r"norm",
    "oc-image": r"^visual\..*ln_",
    "oc-text": r"^(?!visual).*ln_",
}
HEAD = {
    "hf-vit": r"^classifier",
    "hf-dinov2": r"^classifier",
    "hf-minilm": r"^classifier|pooler",
    "mm-vit": r"^head",
    "mm-deit": r"^head",
    "mm-resnet": r"^head",
    "mm-swin": r"^head",
    "oc-image": r"^visual\.proj$",
    "oc-text": r"^text_projection$",
}
BLOCK = {
    "hf-vit": r"vit\.layers\.(\d+)\.",
    "hf-dinov2": r"layer\.(\d+)\.|layers\.(\d+)\.",
    "hf-minilm": r"layer\.(\d+)\.",
    "mm-vit": r"backbone\.layers\.(\d+)\.",
    "mm-deit": r"backbone\.layers\.(\d+)\.",
    "oc-image": r"visual\.transformer\.resblocks\.(\d+)\.",
    "oc-text": r"^transformer\.resblocks\.(\d+)\.",
}
FINAL_NORM = {
    "hf-vit": r"^vit\.layernorm",
    "hf-dinov2": r"^dinov2\.layernorm",
    "hf-minilm": r"^$",  # post-norm: the last norm lies in the last block
    "mm-vit": r"^backbone\.ln1\.",
    "mm-deit": r"^backbone\.ln1\.",
    "oc-image": r"^visual\.ln_post",
    "oc-text": r"^ln_final",
}


def train(distiller: Distiller, optim, steps: int = STEPS) -> list[dict[str, float]]:
    logs = []
    for step in range(steps):
        found = distiller.train_step(small_zoo.batch_of(distiller.adapter, seed=step), optim)
        logs.append({k: float(v) for k, v in found.items()})
    return logs


def keys(adapter, pattern: str) -> set[str]:
    return {k for k in adapter.model.state_dict() if re.search(pattern, k)}


def norms_of_blocks(key: str, adapter, layers: set[int]) -> set[str]:
    found = {k: re.search(BLOCK[key], k) for k in keys(adapter, NORM[key])}
    return {k for k, m in found.items() if m and int(next(g for g in m.groups() if g)) in layers}


@pytest.mark.parametrize("key", NORM)
def test_exact_trains_every_norm_and_the_head_and_nothing_else(key):
    distiller, optim = small_zoo.small_distiller(key)
    before = small_zoo.snapshot(distiller.backbone)
    side = small_zoo.snapshot(distiller.side)
    train(distiller, optim)
    expected = keys(distiller.adapter, NORM[key]) | keys(distiller.adapter, HEAD[key])
    assert small_zoo.changed(before, distiller.backbone) == expected
    assert small_zoo.changed(side, distiller.side) == side.keys()


@pytest.mark.parametrize("key", BLOCK)
def test_last_k_trains_the_norms_of_the_last_blocks_and_behind_them(key):
    distiller, optim = small_zoo.small_distiller(key, norm_gradient="last_k", last_k=1)
    before = small_zoo.snapshot(distiller.backbone)
    train(distiller, optim)
    adapter, last = distiller.adapter, len(distiller.adapter.blocks()) - 1
    expected = norms_of_blocks(key, adapter, {last}) | keys(adapter, FINAL_NORM[key]) | keys(adapter, HEAD[key])
    assert norms_of_blocks(key, adapter, {last})
    assert small_zoo.changed(before, distiller.backbone) == expected


@pytest.mark.parametrize("key", BLOCK)
def test_local_trains_the_norms_of_the_distilled_and_the_last_block(key):
    distiller, optim = small_zoo.small_distiller(key, norm_gradient="local", shallow=[0], deep=[])
    before = small_zoo.snapshot(distiller.backbone)
    logs = train(distiller, optim)
    adapter, last = distiller.adapter, len(distiller.adapter.blocks()) - 1
    norms = norms_of_blocks(key, adapter, {0, last}) | keys(adapter, FINAL_NORM[key])
    assert small_zoo.changed(before, distiller.backbone) == norms | keys(adapter, HEAD[key])
    assert "backbone/local_0" in logs[-1]


@pytest.mark.parametrize("key", NORM)
def test_head_trains_the_output_layer_alone(key):
    distiller, optim = small_zoo.small_distiller(key, norm_gradient="head")
    before = small_zoo.snapshot(distiller.backbone)
    train(distiller, optim)
    assert small_zoo.changed(before, distiller.backbone) == keys(distiller.adapter, HEAD[key])


@pytest.mark.parametrize("key", [*small_zoo.ONE_OF_EACH, "hf-minilm"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_trains_what_its_row_says(key, method):
    distiller, optim = small_zoo.small_distiller(key, method=method, shallow=[0, 1], deep=[-1])
    before = small_zoo.snapshot(distiller.backbone)
    side = None if distiller.side is None else small_zoo.snapshot(distiller.side)
    logs = train(distiller, optim, 2)[-1]
    adapter = distiller.adapter
    norms, head = keys(adapter, NORM[key]), keys(adapter, HEAD[key])
    updates = keys(adapter, r"\.lora_[AB]\.")
    assert bool(updates) is (method in ("lora", "lora_checkpointed", "mdpd_low_rank", "mdpd_coach_low_rank"))
    expected = {
        "ladder": set(),
        "linear": head,
        "mdpd_head": head,
        "lora": head | updates,
        "lora_checkpointed": head | updates,
        "mdpd_low_rank": norms | head | updates,
        "mdpd_coach_low_rank": norms | head | updates,
        "full": set(adapter.parameters()),
    }
    if method in ("mdpd_last_k", "mdpd_local"):
        norms &= distiller.trainable.keys()  # which of them, the tests above say
    assert small_zoo.changed(before, distiller.backbone) == expected.get(method, norms | head)
    features = {"side/imitation_0", "side/imitation_1", "side/generation_2"}
    terms = {
        "mdpd": {"side/task", "backbone/task", "backbone/distillation", *features},
        "mdpd_low_memory": {"side/task", "backbone/task", "backbone/distillation", *features},
        "mdpd_no_feature": {"side/task", "backbone/task", "backbone/distillation"},
        "mdpd_no_logits": {"side/task", "backbone/task", *features},
        "mdpd_no_hierarchy": {
            "side/task",
            "backbone/task",
            "backbone/distillation",
            *(f"side/imitation_{i}" for i in range(3)),
        },
        "mdpd_head": {"side/task", "backbone/task", "backbone/distillation", *features},
        "mdpd_low_rank": {"side/task", "backbone/task", "backbone/distillation", *features},
        "mdpd_last_k": {"side/task", "backbone/task", "backbone/distillation", *features},
        "mdpd_local": {
            *("side/task", "backbone/task", "backbone/distillation", *features),
            *(f"backbone/local_{i}" for i in range(3)),
        },
        "ladder": {"side/task"},
        "lora": {"backbone/task"},
        "lora_checkpointed": {"backbone/task"},
        # Without a coach's outputs they learn from labels alone.
        "mdpd_coach": {"backbone/task"},
        "mdpd_coach_low_rank": {"backbone/task"},
        "norm": {"backbone/task"},
        "norm_checkpointed": {"backbone/task"},
        "linear": {"backbone/task"},
        "full": {"backbone/task"},
    }
    assert logs.keys() - {"loss"} == terms[method]
    assert logs["loss"] == pytest.approx(sum(v for k, v in logs.items() if k != "loss"), rel=1e-5)
    alone = ("norm", "norm_checkpointed", "linear", "lora", "lora_checkpointed", "full")
    alone += ("mdpd_coach", "mdpd_coach_low_rank")
    assert (side is None) is (method in alone)
    assert side is None or small_zoo.changed(side, distiller.side) == side.keys()


@pytest.mark.parametrize("norm_gradient", ["exact", "last_k", "local", "head"])
@pytest.mark.parametrize("update", ["norm", "head", "all", "none", "lora", "norm+low_rank"])
def test_every_combination_of_gradient_and_update_runs(norm_gradient, update):
    distiller, optim = small_zoo.small_distiller("mm-vit", norm_gradient=norm_gradient, backbone_update=update)
    before = small_zoo.snapshot(distiller.backbone)
    train(distiller, optim, 2)
    assert small_zoo.changed(before, distiller.backbone) == set(distiller.trainable)
    assert bool(distiller.trainable) is (update != "none")


@pytest.mark.parametrize("norm_gradient", ["exact", "last_k", "local", "head"])
@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-vit", "mm-resnet", "oc-image"])
def test_half_precision_forwards_train_single_precision_parameters(key, norm_gradient):
    distiller, optim = small_zoo.small_distiller(key, norm_gradient=norm_gradient, amp=torch.bfloat16)
    before = small_zoo.snapshot(distiller.backbone)
    logs = train(distiller, optim, 2)
    assert all(torch.isfinite(torch.tensor(v)) for row in logs for v in row.values())
    assert small_zoo.changed(before, distiller.backbone) == set(distiller.trainable)
    assert {p.dtype for p in distiller.parameters()} == {torch.float32}
    plain = train(*small_zoo.small_distiller(key, norm_gradient=norm_gradient), 1)
    assert logs[0]["backbone/task"] != plain[0]["backbone/task"]
    assert logs[0]["backbone/task"] == pytest.approx(plain[0]["backbone/task"], rel=0.2)
