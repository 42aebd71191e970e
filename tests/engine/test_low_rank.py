"""Low-rank updates: LoRA as a baseline, and as what MDPD may change beyond norms; merged at fading."""

import pytest
import torch
from small_zoo import batch_of, labels_of, small, small_distiller, snapshot
from torch import nn

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import adapt
from mdpd_plugins.engine import fade
from mdpd_plugins.engine.low_rank import low_rank_targets

BACKBONES = ("hf-vit", "hf-minilm", "mm-vit", "oc-image")


@pytest.mark.parametrize("key", BACKBONES)
@pytest.mark.parametrize("method", ["lora", "mdpd_low_rank"])
def test_updates_train_and_merge_into_the_plain_architecture(key, method):
    adapter = small(key)
    before = snapshot(adapter.model)
    plain_blocks = [type(m) for _, b in adapter.named_blocks for m in b.modules()]
    data = batch_of(adapter)
    distiller, optim = small_distiller(adapter, method=method, rank=2)
    losses = [float(distiller.train_step(data, optim)["backbone/task"]) for _ in range(8)]
    assert losses[-1] < losses[0]
    model, report = fade(distiller, data["inputs"])
    assert report.keys_equal and report.merged == len(low_rank_targets(adapter, everywhere=method != "lora"))
    assert model.state_dict().keys() == before.keys()
    assert [type(m) for _, b in adapter.named_blocks for m in b.modules()] == plain_blocks
    moved = {k for k, v in before.items() if not torch.equal(v, model.state_dict()[k])}
    norms = set(adapter.norm_parameters())
    assert moved & norms == (set() if method == "lora" else norms)
    assert any(k.endswith("weight") and k not in norms for k in moved)


@pytest.mark.parametrize("key", BACKBONES)
def test_recomputation_gives_lora_the_gradients_of_the_plain_graph(key):
    gradients = []
    for recompute in (False, True):
        distiller, optim = small_distiller(key, method="lora", recompute=recompute)
        stepped = optim["backbone"].optimizer
        stepped.step = lambda *_, **__: None  # keep the gradients of one step
        stepped.zero_grad = lambda *_, **__: None
        distiller.train_step(batch_of(distiller.adapter), optim)
        gradients.append({k: p.grad.clone() for k, p in distiller.trainable.items()})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][k], gradients[1][k]) for k in gradients[0])


def test_layers_that_hold_one_weight_learn_one_update_and_get_it_once():
    adapter = small("hf-vit")
    first, second = (block.get_submodule("mlp.fc1") for block in adapter.blocks()[:2])
    second.weight = first.weight
    before = first.weight.detach().clone()
    distiller, optim = small_distiller(adapter, method="mdpd_low_rank", backbone_every=1, warmup=0.0)
    data = batch_of(adapter)
    for _ in range(3):
        distiller.train_step(data, optim)
    assert sum("mlp.fc1.lora_A" in key for key in distiller.trainable) == len(adapter.blocks()) - 1
    _, report = fade(distiller, data["inputs"])  # which compares the outputs
    assert report.merged == len(low_rank_targets(adapter, everywhere=True)) and report.keys_equal
    first, second = (block.get_submodule("mlp.fc1") for block in adapter.blocks()[:2])
    assert second.weight is first.weight and not torch.equal(first.weight, before)


def test_each_update_of_pytorchs_attention_counts_once():
    adapter = small("oc-image")
    before = snapshot(adapter.model)
    distiller, optim = small_distiller(adapter, method="mdpd_low_rank", rank=2)
    distiller.train_step(batch_of(adapter), optim)
    attention = next(m for m in adapter.model.modules() if hasattr(m, "lora_A") and hasattr(m, "in_proj_weight"))
    name = next(n for n, m in adapter.model.named_modules() if m is attention)
    out = attention.base_layer.out_proj
    updates = [
        m.scaling["default"] * (m.lora_B["default"].weight @ m.lora_A["default"].weight) for m in (attention, out)
    ]
    updates = [u.detach().clone() for u in updates]
    assert all(u.any() for u in updates)
    model, _ = fade(distiller)
    for key, update in zip((f"{name}.in_proj_weight", f"{name}.out_proj.weight"), updates, strict=True):
        assert torch.equal(model.state_dict()[key], before[key] + update)


class Block(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        self.norm, self.first = nn.LayerNorm(16), nn.Linear(16, 16)
        self.second = normalise(nn.Linear(16, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        if normalise is not nn.utils.weight_norm:  # PyTorch's attention never calls the hook of that one
            normalise(self.attention.out_proj)

    def forward(self, x):
        y = self.norm(x)
        return x + self.second(torch.relu(self.first(y))) + self.attention(y, y, y, need_weights=False)[0]


class Own(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 5)
        self.blocks = nn.Sequential(*(Block(normalise) for _ in range(3)))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(1))


NORMALISED = {
    "weight": nn.utils.parametrizations.weight_norm,
    "spectral": nn.utils.parametrizations.spectral_norm,
    "weight, as it was": nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", NORMALISED)
def test_layers_that_compute_their_weight_get_no_update_and_the_others_are_merged(kind):
    torch.manual_seed(0)
    model, x = Own(NORMALISED[kind]), torch.randn(4, 7, 6)
    adapter = adapt(model, example_inputs=x)
    student = mdpd.distill(adapter, steps=2, reduction=4, backbone_every=1, warmup=0.0)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    for _ in range(2):
        student.backward(x, labels_of())
        optimizer.step()
    plain = {"first"} if kind != "weight, as it was" else {"first", "attention", "out_proj"}
    updated = {
        part for name in student.low_rank for part in name.partition(".lora_")[0].split(".") if part != "base_layer"
    }
    assert updated - {"blocks", "0", "1", "2"} == plain
    _, report = mdpd.fade(student)
    assert report.merged == (3 if plain == {"first"} else 6) and report.keys_equal
