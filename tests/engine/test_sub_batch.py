"""A batch worked off in pieces teaches what it teaches whole, up to the order of floating-point sums."""

import pytest
import small_zoo
import torch

from mdpd_plugins.engine import NonFiniteLossError
from mdpd_plugins.engine.batch_parts import BatchPart
from mdpd_plugins.registry import ConfigError

BATCH = 5  # pieces of two leave a rest
# Of the largest gradient of its path: what float32 sums of other order differ by, with room (seen: 1e-6).
TOLERANCE = 2e-5


def gradients(key, sub_batch, batch_seed=0, **settings):
    """(gradients of one step by parameter, its loss terms)."""
    distiller, optim = small_zoo.small_distiller(key, sub_batch=sub_batch, **settings)
    found = {}
    for wrapper in optim.values():
        # In place of the update, which would turn gradients of rounding size into steps of full size.
        wrapper.step = lambda w=wrapper: found.update(
            {id(p): p.grad.clone() for p in w.parameters if p.grad is not None}
        )
    batch = small_zoo.batch_of(distiller.adapter, batch=BATCH, seed=batch_seed)
    logs = distiller.train_step(batch, optim)
    return {n: found[id(p)] for n, p in distiller.named_parameters() if id(p) in found}, logs


def assert_same(key, **settings):
    whole, whole_logs = gradients(key, None, **settings)
    pieces, logs = gradients(key, 2, **settings)
    assert whole.keys() == pieces.keys() and whole
    for path in ("side.", "features.", "backbone."):
        mine = {n: g for n, g in whole.items() if n.startswith(path)}
        scale = max((float(g.abs().max()) for g in mine.values()), default=0.0)
        for name, gradient in mine.items():
            torch.testing.assert_close(
                pieces[name], gradient, rtol=0, atol=TOLERANCE * scale, msg=lambda m, name=name: f"{name}: {m}"
            )
    assert whole_logs.keys() == logs.keys()
    for name, value in whole_logs.items():
        torch.testing.assert_close(logs[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_gradients_of_both_paths_and_losses_are_the_whole_batchs(key):
    assert_same(key)  # texts end at different places, so pieces count different numbers of tokens


@pytest.mark.parametrize("norm_gradient", ["local", "last_k", "head"])
def test_so_they_are_in_the_other_gradient_modes(norm_gradient):
    assert_same("hf-minilm", norm_gradient=norm_gradient, last_k=1)


@pytest.mark.parametrize("method", ["full", "norm", "ladder", "mdpd_no_hierarchy"])
def test_so_they_are_for_baselines_and_ablations(method):
    assert_same("hf-vit", method=method)


def test_the_automatic_split_measures_the_whole_batch():
    agreements = []
    for sub_batch in (None, 2):
        settings = {"shallow": "auto", "deep": "auto", "auto_batches": 2, "sub_batch": sub_batch}
        distiller, optim = small_zoo.small_distiller("hf-minilm", **settings)
        distiller.train_step(small_zoo.batch_of(distiller.adapter, batch=BATCH), optim)
        agreements.append(distiller.layers.agreements.clone())
    assert (agreements[0] > 0).all()
    torch.testing.assert_close(*agreements, rtol=1e-5, atol=1e-7)


def test_pieces_make_one_update_and_count_as_one_batch():
    distiller, optim = small_zoo.small_distiller("hf-vit", sub_batch=2, accumulate=2)
    before = small_zoo.snapshot(distiller.backbone)
    moved = []
    for seed in range(4):
        distiller.train_step(small_zoo.batch_of(distiller.adapter, batch=BATCH, seed=seed), optim)
        moved.append(bool(small_zoo.changed(before, distiller.backbone)))
        before = small_zoo.snapshot(distiller.backbone)
    assert moved == [False, True] * 2


def test_a_loss_that_is_not_finite_in_a_later_piece_changes_nothing():
    distiller, optim = small_zoo.small_distiller("hf-vit", sub_batch=2)
    batch = small_zoo.batch_of(distiller.adapter, batch=BATCH)
    batch["inputs"]["image"][4] = torch.inf
    before = small_zoo.snapshot(distiller)
    with pytest.raises(NonFiniteLossError):
        distiller.train_step(batch, optim)
    assert not small_zoo.changed(before, distiller)
    assert not [n for n, p in distiller.named_parameters() if p.grad is not None and p.grad.any()]


def test_weights_of_pieces_add_up_to_the_share_of_their_part():
    part = BatchPart(start=3, size=5, total=8, processes=2)
    pieces = list(part.pieces(2))
    assert [(p.rows.start, p.rows.stop) for p in pieces] == [(0, 2), (2, 4), (4, 5)]
    # Five of eight samples; the average over two processes is taken of what this one computes.
    assert [p.weight for p in pieces] == [2 * 2 / 8, 2 * 2 / 8, 1 * 2 / 8]
    assert [(p.rows.start, p.rows.stop) for p in part.pieces(None)] == [(0, 5)]


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "4"])
def test_a_size_that_is_no_count_is_refused(value):
    with pytest.raises(ConfigError, match="distill.sub_batch="):
        small_zoo.small_distiller("hf-vit", sub_batch=value)
