"""Block-level recomputation: the very gradients of plain autograd, bit for bit in fp32."""

import pytest
import small_zoo
import torch
import torch.nn.functional as F


def gradients(adapter, inputs, labels, *, recompute: bool) -> dict[str, torch.Tensor]:
    trained = {**adapter.norm_parameters(), **adapter.head_parameters()}
    for name, p in adapter.model.named_parameters():
        p.requires_grad_(name in trained)
    context = adapter.recompute() if recompute else torch.enable_grad()
    with context, adapter.capture():
        loss = F.cross_entropy(adapter.forward(inputs), labels)
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_recomputed_norm_gradients_are_plain_autograds(key):
    adapter = small_zoo.small(key)
    inputs, labels = small_zoo.inputs_of(adapter), small_zoo.labels_of()
    plain = gradients(adapter, inputs, labels, recompute=False)
    exact = gradients(adapter, inputs, labels, recompute=True)
    assert plain.keys() == adapter.norm_parameters().keys() | adapter.head_parameters().keys()
    different = [k for k in plain if not torch.equal(plain[k], exact[k])]
    assert not different
    # No gradient is trivially equal: each of them moves its parameter.
    assert not [k for k in plain if not plain[k].abs().max() > 0 and "key" not in k]


@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_the_first_blocks_norms_get_a_gradient_through_every_block_behind_them(key):
    adapter = small_zoo.small(key)
    inputs, labels = small_zoo.inputs_of(adapter), small_zoo.labels_of()
    first = f"{adapter.named_blocks[0][0]}."
    before = gradients(adapter, inputs, labels, recompute=True)
    with torch.no_grad():
        for p in adapter.blocks()[2].parameters():
            p.mul_(1.5)
    after = gradients(adapter, inputs, labels, recompute=True)
    norms = [k for k in adapter.norm_parameters() if k.startswith(first)]
    assert norms
    assert not [k for k in norms if torch.equal(before[k], after[k])]


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_recomputation_changes_no_output_and_ends_with_its_context(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)
    for p in adapter.model.parameters():
        p.requires_grad_(True)  # under grad mode a framework may compute in another order than without
    with_graph = adapter.forward(inputs)
    forwards = [vars(b).get("forward") for b in adapter.blocks()]
    with adapter.recompute():
        assert torch.equal(adapter.forward(inputs), with_graph)
    assert [vars(b).get("forward") for b in adapter.blocks()] == forwards
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), plain)


def test_a_block_that_had_its_own_forward_gets_it_back():
    adapter = small_zoo.small("hf-vit")
    block = adapter.blocks()[0]
    own = block.forward
    block.forward = own
    with adapter.recompute():
        assert vars(block)["forward"] is not own
    assert vars(block)["forward"] is own
