"""Block-level recomputation: the very gradients of plain autograd, bit for bit in fp32."""

import pytest
import small_zoo
import torch
from adapting import gradients

from mdpd_plugins.adapters import Adapter


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


class AddsInPlace(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)

    def forward(self, x):
        change = self.linear(self.norm(x.clone()))
        x[:, 1:] = x[:, 1:] + change[:, 1:]
        return x + change


class WritesInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image_size = 8
        self.stem = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = torch.nn.ModuleList(AddsInPlace() for _ in range(3))
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def test_blocks_that_write_into_their_input_leave_captured_states_and_gradients_alone():
    adapter, labels = Adapter(WritesInputs()), torch.tensor([0, 1])
    inputs = adapter.example_inputs()
    with torch.no_grad():
        reference = adapter.model(inputs["image"])
        with adapter.capture(keep_calls=True) as seen:
            assert torch.equal(adapter.forward(inputs), reference)
        # What left a block is what the next one began with.
        (entered,), _, left = seen.calls[1]
        block = adapter.blocks()[1]
        assert torch.equal(block(entered.clone()), left)
        assert torch.equal(entered, seen.hidden[0])
    plain = gradients(adapter, inputs, labels, recompute=False)
    exact = gradients(adapter, inputs, labels, recompute=True)
    assert not [k for k in plain if not torch.equal(plain[k], exact[k])]
    assert "forward" not in block.__dict__
