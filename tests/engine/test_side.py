"""The side network: the ladder's formula, widths that work, token counts that change on the way."""

from dataclasses import replace

import pytest
import small_zoo
import torch

from mdpd_plugins.adapters import Layout
from mdpd_plugins.engine.side import (
    Ladder,
    PooledHead,
    SideNetwork,
    TowerStates,
    masked_mean,
    side_width,
    token_mask,
)
from mdpd_plugins.registry import ConfigError

LAYOUTS = [Layout(1, (2, 2))] * 3


def side_and_states(seed: int = 0) -> tuple[SideNetwork, TowerStates]:
    torch.manual_seed(seed)
    side = SideNetwork([Ladder(12, [16, 16], reduction=2, head_dim=4)], PooledHead(torch.nn.Linear(8, 3)))
    return side, TowerStates(torch.randn(2, 5, 12), [torch.randn(2, 5, 16) for _ in range(2)], LAYOUTS)


def test_states_follow_the_ladders_formula():
    side, read = side_and_states()
    (ladder,) = side.ladders
    with torch.no_grad():
        ladder.gates.copy_(torch.tensor([0.05, -0.1]))
    mu = [1 / (1 + torch.exp(torch.tensor(-a / 0.1))) for a in (0.05, -0.1)]
    normal = torch.nn.functional.layer_norm
    s = normal(read.stem, [12]) @ ladder.stem.weight.T + ladder.stem.bias
    out = side([read])
    for i in range(2):
        down = normal(read.hidden[i], [16]) @ ladder.downs[i].weight.T + ladder.downs[i].bias
        s = ladder.blocks[i](mu[i] * s + (1 - mu[i]) * down, LAYOUTS[i], None)
        torch.testing.assert_close(out.states[i], s)
    pooled = ladder.norm(s)[:, 1:].mean(1)  # without the prefix token
    torch.testing.assert_close(out.logits, side.head.output(pooled))


@pytest.mark.parametrize("convolutional", [False, True])
def test_a_block_begins_as_the_identity_and_every_parameter_learns(convolutional):
    torch.manual_seed(0)
    ladder = Ladder(16, [16, 16], reduction=2, head_dim=4, convolutional=convolutional)
    side = SideNetwork([ladder], PooledHead(torch.nn.Linear(8, 3)))
    x = torch.randn(2, 4, 8)
    assert all(torch.equal(block(x, Layout(0, (2, 2)), None), x) for block in ladder.blocks)
    layouts = [Layout(0, (2, 2))] * 3
    read = TowerStates(torch.randn(2, 4, 16), [torch.randn(2, 4, 16) for _ in range(2)], layouts)
    before = {n: p.detach().clone() for n, p in side.named_parameters()}
    optimizer = torch.optim.AdamW(side.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(side([read]).logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    still = [n for n, p in side.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_how_large_hidden_states_are_does_not_matter():
    side, read = side_and_states()
    larger = replace(read, stem=50 * read.stem + 3, hidden=[200 * h - 7 for h in read.hidden])
    torch.testing.assert_close(side([larger]).logits, side([read]).logits, atol=1e-3, rtol=1e-3)


def test_under_autocast_a_reading_keeps_the_narrow_type():
    side, read = side_and_states()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, _, _ = side.ladders[0](read)
    assert {s.dtype for s in states} == {torch.bfloat16}
    torch.testing.assert_close(states[-1].float(), side([read]).states[-1], atol=0.1, rtol=0.1)


def test_gates_start_in_the_middle_and_choose_between_ladder_and_backbone():
    side, read = side_and_states()
    assert not side.ladders[0].gates.any()
    other = replace(read, hidden=[h.roll(1, 0) for h in read.hidden])
    assert not torch.equal(side([other]).logits, side([read]).logits)
    with torch.no_grad():
        side.ladders[0].gates.fill_(20.0)  # sigmoid(200) is 1 in floating point: only the ladder is left
    assert torch.equal(side([other]).logits, side([read]).logits)


@pytest.mark.parametrize(("reduction", "why"), [(5, "divide"), (16, "at least 4"), (0, "divide"), (64, "at least 4")])
def test_a_reduction_that_does_not_divide_or_leaves_no_width_names_those_that_work(reduction, why):
    with pytest.raises(ConfigError, match=rf"reduction={reduction} .*width 32: .*{why}.*\[1, 2, 4, 8\]"):
        side_width(32, reduction)
    assert [side_width(32, r) for r in (1, 2, 4, 8)] == [32, 16, 8, 4]


@pytest.mark.parametrize("reduction", [5, 16])
@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_a_reduction_that_does_not_fit_is_refused_before_anything_is_trained(key, reduction):
    adapter = small_zoo.small(key)
    before = small_zoo.snapshot(adapter.model)
    with pytest.raises(ConfigError, match=f"reduction={reduction * 2 if key == 'oc-image' else reduction} "):
        small_zoo.small_distiller(adapter, reduction=reduction * 2 if key == "oc-image" else reduction)
    assert not small_zoo.changed(before, adapter.model)
    assert all(p.requires_grad for p in adapter.parameters().values())


def test_a_head_width_that_does_not_divide_gives_one_head():
    assert Ladder(12, [12], reduction=1, head_dim=5).blocks[0].heads == 1
    assert Ladder(12, [12], reduction=1, head_dim=4).blocks[0].heads == 3


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_the_ladder_stands_beside_every_backbone(key):
    distiller, _ = small_zoo.small_distiller(key)
    adapter = distiller.adapter
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(inputs)
    hidden = [seen.hidden[i] for i in range(len(seen.hidden))]
    layouts = [seen.stem_layouts[0], *(seen.layouts[i] for i in range(len(hidden)))]
    out = distiller.side([TowerStates(seen.stems[0], hidden, layouts, adapter.attention_mask(inputs))])
    assert out.logits.shape == (4, 5)
    width = adapter.dims[-1] // 4
    assert [s.shape for s in out.states] == [(*seen.hidden[i].shape[:2], width) for i in range(len(seen.hidden))]
    convolutional = any(isinstance(m, torch.nn.Conv2d) for m in distiller.side.modules())
    assert [convolutional] == adapter.convolutional == [key == "mm-resnet"]


def test_prefix_tokens_and_padding_are_outside_a_token_mask():
    valid = torch.tensor([[True, True, True, False], [True, True, True, True]])
    x = torch.randn(2, 4, 3)
    mask = token_mask(x, Layout(1, None), valid)
    assert mask.tolist() == [[False, True, True, False], [False, True, True, True]]
    assert valid.all(1).tolist() == [False, True]  # the mask of the batch was not written to
    torch.testing.assert_close(masked_mean(x, mask)[0], (x[0, 1] + x[0, 2]) / 2)
    assert not masked_mean(x, torch.zeros_like(mask)).any()  # and no division by zero
