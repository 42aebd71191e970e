"""Feature distillation: which tokens count, and what is compared. Content that does not count changes nothing."""

import pytest
import torch

from mdpd_plugins.adapters import Layout
from mdpd_plugins.engine.feature_distillation import FeatureDistillation, normalised_distance

PREFIX, GRID = 2, (3, 4)
TOKENS = PREFIX + GRID[0] * GRID[1]
KINDS = ("grid", "text")


def setting(kind: str, mask_ratio: float = 0.5):
    """(module, layout, valid, side states, hidden states) of an image batch, or of padded text."""
    torch.manual_seed(0)
    grids = [kind == "grid"] * 2
    module = FeatureDistillation([8, 8], [16, 16], [0], [1], bottleneck=6, mask_ratio=mask_ratio, grids=grids)
    with torch.no_grad():
        module.generators["1"].mask_token.normal_()
    layout = Layout(PREFIX, GRID) if kind == "grid" else Layout(0, None)
    valid = None
    if kind == "text":
        valid = torch.arange(TOKENS) < torch.tensor([TOKENS - 4, TOKENS])[:, None]
    return module, layout, valid, torch.randn(2, TOKENS, 8), torch.randn(2, TOKENS, 16)


def counted(layout: Layout, valid: torch.Tensor | None) -> torch.Tensor:
    found = torch.ones(2, TOKENS, dtype=torch.bool) if valid is None else valid.clone()
    found[:, : layout.prefix] = False
    return found


def influence(loss_of, tensor: torch.Tensor) -> torch.Tensor:
    """(2, TOKENS) bool: tokens of `tensor` whose content changes the loss."""
    plain, found = loss_of(tensor), torch.zeros(2, TOKENS, dtype=torch.bool)
    for b in range(2):
        for t in range(TOKENS):
            changed = tensor.clone()
            changed[b, t] += torch.linspace(-3, 5, tensor.shape[-1])
            found[b, t] = not torch.equal(loss_of(changed), plain)
    return found


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("kind", KINDS)
def test_imitation_compares_normalised_states_over_the_tokens_that_count(kind):
    module, layout, valid, state, hidden = setting(kind)
    up, down = module.alignments["0"].up.weight, module.alignments["0"].down.weight
    assert up.shape == (16, 6) and down.shape == (6, 8)

    def normalise(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    difference = normalise(state @ down.T @ up.T) - normalise(hidden)
    expected = difference[counted(layout, valid)].square().mean()
    torch.testing.assert_close(module.imitation(0, state, hidden, layout, valid), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_imitation_hears_the_tokens_that_count_and_no_other(kind):
    module, layout, valid, state, hidden = setting(kind)
    with torch.no_grad():
        heard = influence(lambda h: module.imitation(0, state, h, layout, valid), hidden)
        spoken = influence(lambda s: module.imitation(0, s, hidden, layout, valid), state)
    assert torch.equal(heard, counted(layout, valid))
    assert torch.equal(spoken, counted(layout, valid))


@pytest.mark.parametrize("kind", KINDS)
def test_generation_counts_masked_tokens_only_and_cannot_see_them(kind):
    module, layout, valid, state, hidden = setting(kind)
    with torch.no_grad():
        masked = influence(lambda h: module.generation(1, state, h, layout, valid, draws()), hidden)
        seen = influence(lambda s: module.generation(1, s, hidden, layout, valid, draws()), state)
    tokens = counted(layout, valid)
    assert masked.any() and not (masked & ~tokens).any()
    assert not torch.equal(masked, tokens)
    # What is generated is drawn from tokens that are left; what was masked there is unknown to it.
    assert seen.any() and not (seen & (masked | ~tokens)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_the_mean_over_the_masked_tokens(kind):
    module, layout, valid, state, hidden = setting(kind)
    with torch.no_grad():
        masked = influence(lambda h: module.generation(1, state, h, layout, valid, draws()), hidden)
        filled = module.generators["1"](module.alignments["1"].down(state), masked, counted(layout, valid), layout)
        difference = torch.nn.functional.layer_norm(module.alignments["1"].up(filled), (16,))
        difference = difference - torch.nn.functional.layer_norm(hidden, (16,))
        expected = difference[masked].square().mean()
        torch.testing.assert_close(module.generation(1, state, hidden, layout, valid, draws()), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_ratio", [0.0, 1.0])
def test_mask_shares_of_zero_and_one(kind, mask_ratio):
    module, layout, valid, state, hidden = setting(kind, mask_ratio)
    with torch.no_grad():
        heard = influence(lambda h: module.generation(1, state, h, layout, valid, draws()), hidden)
    assert torch.equal(heard, counted(layout, valid) if mask_ratio else torch.zeros_like(heard))
    loss = module.generation(1, state, hidden, layout, valid, draws())
    assert torch.isfinite(loss) and bool(loss) is bool(mask_ratio)


def test_the_share_of_masked_tokens_is_the_one_asked_for():
    torch.manual_seed(0)
    module = FeatureDistillation([8], [16], [], [0], bottleneck=6, mask_ratio=0.3, grids=[False])
    state, hidden = torch.randn(4, 1000, 8), torch.randn(4, 1000, 16)
    # The loss has a gradient by a token's prediction exactly where the token was masked.
    terms = torch.zeros(4, 1000, 16, requires_grad=True)
    module.alignments["0"].up.register_forward_hook(lambda m, a, output: output + terms)
    module.generation(0, state, hidden, Layout(0, None), None, draws()).backward()
    share = (terms.grad.abs().sum(-1) > 0).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.03)


def test_masks_come_from_the_generator_alone():
    module, layout, valid, state, hidden = setting("grid")
    first = module.generation(1, state, hidden, layout, valid, draws())
    torch.manual_seed(99)
    assert torch.equal(module.generation(1, state, hidden, layout, valid, draws()), first)
    other = module.generation(1, state, hidden, layout, valid, torch.Generator().manual_seed(4))
    assert not torch.equal(other, first)


def test_how_far_texts_are_padded_changes_no_loss():
    module, layout, valid, state, hidden = setting("text", 0.9)
    assert valid[1].all()  # one text gets its first padding

    def padded(x):
        return torch.cat([x, torch.randn(2, 3, x.shape[-1])], 1)

    more = torch.nn.functional.pad(valid, (0, 3))
    torch.testing.assert_close(
        module.generation(1, padded(state), padded(hidden), layout, more, draws()),
        module.generation(1, state, hidden, layout, valid, draws()),
    )
    torch.testing.assert_close(
        module.imitation(0, padded(state), padded(hidden), layout, more),
        module.imitation(0, state, hidden, layout, valid),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_target(kind):
    module, layout, valid, state, hidden = setting(kind)
    hidden.requires_grad_(), state.requires_grad_()
    imitation = module.imitation(0, state, hidden, layout, valid)
    (imitation + module.generation(1, state, hidden, layout, valid, draws())).backward()
    assert hidden.grad is None
    assert state.grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in module.parameters())


def test_the_distance_ignores_scale_and_shift_and_an_empty_mask_costs_nothing():
    x, mask = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    assert float(normalised_distance(x, 3 * x + 2, mask)) == pytest.approx(0, abs=1e-6)
    assert float(normalised_distance(x, -x, mask)) > 3
    assert float(normalised_distance(x, -x, ~mask)) == 0
