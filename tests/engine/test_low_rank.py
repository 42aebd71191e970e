"""Low-rank updates: LoRA as a baseline, and as what MDPD may change beyond norms; merged at fading."""

import pytest
import torch
from small_zoo import batch_of, small, small_distiller, snapshot

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
