"""Bytes: the meter counts exactly, and a step of the method holds a fraction of full fine-tuning's."""

import pytest
import small_zoo
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.engine import TensorMeter

KIB = 1024  # bytes of 256 float32


def vector() -> torch.Tensor:
    return torch.randn(256)


def test_every_new_storage_counts_once_until_its_last_reference_dies():
    a, b = vector(), vector()
    with TensorMeter() as meter:
        c = a + b
        assert (meter.live, meter.peak) == (KIB, KIB)
        d = c.view(2, 128).T[1:]  # views
        c.add_(1)  # and in-place results are no new storage
        assert meter.live == KIB
        e = torch.cat([c, c])
        assert (meter.live, meter.peak) == (3 * KIB, 3 * KIB)
        del c
        assert meter.live == 3 * KIB  # the view still holds it
        del d
        assert meter.live == 2 * KIB
        del e
        assert (meter.live, meter.peak) == (0, 3 * KIB)
        e = a.double()
        assert e.nbytes == meter.live == 2 * KIB
        assert meter.peak == 3 * KIB


def test_what_existed_before_counts_nothing_even_where_an_operation_returns_it():
    a, out = vector(), torch.empty(256)
    with TensorMeter([a]) as meter:
        b = a.view(16, 16)
        a.mul_(2)
        torch.add(b.flatten(), 1, out=out)
        c = a.detach()
        assert (meter.live, meter.peak) == (0, 0)
    del b, c


def test_tensors_that_only_the_graph_holds_are_counted_until_backward():
    a = vector().requires_grad_()
    with TensorMeter([a]) as meter:
        loss = a.exp().exp().exp().sum()  # exp keeps its result
        held = meter.live
        assert 3 * KIB <= held <= 3 * KIB + 16
        loss.backward()
        del loss
        assert meter.live == KIB  # the gradient
        assert meter.peak >= 4 * KIB
    assert a.grad.nbytes == KIB


def test_recomputation_inside_a_backward_is_counted_while_it_lasts():
    a = vector().requires_grad_()

    def steps(x):
        return x.exp().exp().exp().sin()

    def measured(run) -> tuple[int, int]:
        a.grad = None
        with TensorMeter([a]) as meter:
            loss = run(a).sum()
            held = meter.live
            loss.backward()
            return held, meter.peak

    plain_held, _ = measured(steps)
    held, peak = measured(lambda x: checkpoint(steps, x, use_reentrant=False))
    assert held < plain_held
    assert peak >= plain_held - held


def deep_vit():
    """Real proportions: 12 blocks, width 192, 65 tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    return build_backbone(
        "huggingface/vit-base-patch16-224", pretrained=None, num_classes=5, image_size=64, patch_size=8, **sizes
    )


def saved_for_backward(adapter, batch) -> int:
    """Bytes that a forward and its loss leave behind for backward, counted without the meter."""
    known = {p.untyped_storage().data_ptr() for p in adapter.model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = F.cross_entropy(adapter.forward(batch["inputs"]), batch["labels"])
    assert loss.requires_grad
    return sum(sizes.values())


def held_by_a_step(distiller, optim, batch) -> int:
    """Peak of what a training step creates, once the optimisers' own state is there."""
    distiller.train_step(batch, optim)
    state = [t for w in optim.values() for s in w.optimizer.state.values() for t in s.values()]
    with TensorMeter([*distiller.parameters(), *distiller.buffers(), *state, *batch["inputs"].values()]) as meter:
        distiller.train_step(batch, optim)
    return meter.peak


def test_a_step_of_both_paths_holds_less_than_a_quarter_of_what_full_fine_tuning_saves():
    adapter = deep_vit()
    batch = small_zoo.batch_of(adapter, batch=8)
    saved = saved_for_backward(adapter, batch)
    with TensorMeter([*adapter.model.parameters(), *batch["inputs"].values()]) as meter:
        loss = F.cross_entropy(adapter.forward(batch["inputs"]), batch["labels"])
        metered = meter.live
    del loss
    assert metered == pytest.approx(saved, rel=0.02)  # two ways of counting agree
    distiller, optim = small_zoo.small_distiller(adapter, reduction=8, bottleneck=32)
    # Everything the step makes: both graphs, recomputed blocks, gradients, against saved activations alone.
    assert held_by_a_step(distiller, optim, batch) < 0.25 * saved


def test_sub_batches_hold_less_than_half_of_it():
    distiller, optim = small_zoo.small_distiller(deep_vit(), reduction=8, bottleneck=32)
    whole = held_by_a_step(distiller, optim, small_zoo.batch_of(distiller.adapter, batch=8))
    pieces, optim = small_zoo.small_distiller(deep_vit(), reduction=8, bottleneck=32, sub_batch=2)
    held = held_by_a_step(pieces, optim, small_zoo.batch_of(pieces.adapter, batch=8))
    gradients = sum(p.nbytes for p in pieces.parameters() if p.requires_grad)
    assert held - gradients < 0.5 * (whole - gradients)


def test_the_ladder_is_recomputed_rung_by_rung_with_the_same_gradients():
    held, found = [], []
    for recompute in (True, False):
        distiller, optim = small_zoo.small_distiller(deep_vit(), reduction=8, method="ladder", recompute=recompute)
        arrived = {}
        for name, p in distiller.side.named_parameters():
            p.register_post_accumulate_grad_hook(lambda p, n=name, to=arrived: to.update({n: p.grad.clone()}))
        held.append(held_by_a_step(distiller, optim, small_zoo.batch_of(distiller.adapter, batch=8)))
        found.append(arrived)
    assert held[0] < 0.75 * held[1]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(g, found[1][n]) for n, g in found[0].items())


def test_norm_tuning_without_recomputation_would_not_do():
    adapter = deep_vit()
    batch = small_zoo.batch_of(adapter, batch=8)
    saved = saved_for_backward(adapter, batch)
    trained = {**adapter.norm_parameters(), **adapter.head_parameters()}
    for name, p in adapter.model.named_parameters():
        p.requires_grad_(name in trained)
    assert saved_for_backward(adapter, batch) > 0.5 * saved
