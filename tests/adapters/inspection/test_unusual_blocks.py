"""Blocks that stand apart, come in parallel lists, or are never called: found, captured and run again."""

import pytest
import torch
from torch import nn

from mdpd_plugins.adapters import Adapter, build_backbone

SMALL = {
    "squeezebert": {
        "hidden_size": 32,
        "embedding_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "perceiver": {
        "d_model": 32,
        "d_latents": 32,
        "num_latents": 24,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "head": "text",
    },
}
NAMES = {
    "squeezebert": ["transformer.encoder.layers.0", "transformer.encoder.layers.1"],
    "xlm": [f"transformer.{kind}.{i}" for i in (0, 1) for kind in ("attentions", "ffns")],
    "flaubert": [f"transformer.{kind}.{i}" for i in (0, 1) for kind in ("attentions", "ffns")],
    "perceiver": [f"perceiver.encoder.{n}" for n in ("cross_attention", "self_attends.0", "self_attends.1")],
}


def build(name: str) -> Adapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"vocab_size": 300, **SMALL[name]}
        return build_backbone(f"huggingface/{name}", pretrained=None, num_classes=5, **small)


def gradients(adapter: Adapter, recompute: bool) -> dict[str, torch.Tensor]:
    norms = adapter.norm_parameters()
    adapter.model.requires_grad_(False)
    for p in norms.values():
        p.requires_grad_(True)
        p.grad = None
    if recompute:
        with adapter.recompute():
            out = adapter.forward(adapter.example_inputs())
    else:
        out = adapter.forward(adapter.example_inputs())
    out.square().sum().backward()
    return {k: p.grad for k, p in norms.items() if p.grad is not None}


@pytest.mark.parametrize("name", list(SMALL))
def test_blocks_are_found_in_execution_order(name):
    assert [n for n, _ in build(name).named_blocks] == NAMES[name]


@pytest.mark.parametrize("name", list(SMALL))
def test_each_is_captured_and_the_last_one_replayed(name):
    adapter = build(name)
    inputs = adapter.example_inputs()
    with torch.no_grad(), adapter.capture(keep_calls=True) as seen:
        logits = adapter.forward(inputs)
    assert sorted(seen.hidden) == list(range(len(NAMES[name])))
    last = seen.hidden[len(NAMES[name]) - 1]
    assert last.shape == (2, 24 if name == "perceiver" else 16, 32)
    with torch.no_grad():
        assert torch.equal(adapter.forward_head(inputs, seen, last), logits)
        assert not torch.equal(adapter.forward_head(inputs, seen, last + torch.randn_like(last)), logits)


@pytest.mark.parametrize("name", list(SMALL))
def test_gradients_through_recomputation_are_those_of_plain_autograd(name):
    adapter = build(name)
    plain, exact = gradients(adapter, recompute=False), gradients(adapter, recompute=True)
    assert plain
    assert plain.keys() == exact.keys()
    assert all(torch.equal(plain[k], exact[k]) for k in plain)


def test_a_block_whose_forward_is_run_directly_is_left_as_it_was():
    adapter = build("squeezebert")
    fires: list[nn.Module] = []
    block = adapter.blocks()[0]
    handle = block.register_forward_hook(lambda m, *_: fires.append(m))
    before = {n: sorted(m.__dict__) for n, m in adapter.model.named_modules()}
    with torch.no_grad():
        with adapter.capture():
            through, count = adapter.forward(adapter.example_inputs()), len(fires)
        plain = adapter.forward(adapter.example_inputs())
        bare = adapter.model(**adapter.example_inputs()).logits
    handle.remove()
    assert count == 1, "hooks fire inside a capture"
    assert len(fires) == 1, "and everywhere else the model runs as its library wrote it"
    assert torch.equal(through, bare) and torch.equal(plain, bare)
    assert before == {n: sorted(m.__dict__) for n, m in adapter.model.named_modules()}
    assert not any(m._forward_pre_hooks for m in adapter.model.modules())


def test_only_blocks_that_are_run_directly_are_rerouted():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            return x + self.linear(self.norm(x))

    class Mixed(nn.Module):
        image_size = 4

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 2, 2)
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            self.head = nn.Linear(8, 5)

        def forward(self, image):
            x = self.stem(image).flatten(2).transpose(1, 2)
            x = self.blocks[1].forward(self.blocks[0](x))
            return self.head(self.blocks[2](x).mean(1))

    adapter = Adapter(Mixed())
    assert [n for n, _ in adapter.named_blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(adapter.example_inputs())
        adapter.forward(adapter.example_inputs())
    assert sorted(seen.hidden) == [0, 1, 2]
