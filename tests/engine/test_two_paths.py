"""The two paths of a step: neither loss reaches the other path, and a step is applied whole or not at all."""

import math

import pytest
import small_zoo
import torch
import torch.nn.functional as F

from mdpd_plugins.engine import Distiller, NonFiniteLossError
from mdpd_plugins.training.optim import PathOptimisers

KEYS = ("hf-vit", "hf-minilm", "mm-vit", "mm-resnet", "oc-image", "oc-text")


def step(distiller: Distiller, optim: PathOptimisers, seed: int = 0) -> dict[str, torch.Tensor]:
    return distiller.train_step(small_zoo.batch_of(distiller.adapter, seed=seed), optim)


def gradients_of_a_step(distiller: Distiller, optim: PathOptimisers) -> dict[str, list[torch.Tensor]]:
    """Parameter name -> every gradient that arrived at it during one step, before anything zeroes it."""
    arrived: dict[str, list[torch.Tensor]] = {}
    handles = [
        p.register_post_accumulate_grad_hook(lambda p, n=name: arrived.setdefault(n, []).append(p.grad.clone()))
        for name, p in distiller.named_parameters()
        if p.requires_grad
    ]
    step(distiller, optim)
    for handle in handles:
        handle.remove()
    return arrived


@pytest.mark.parametrize("key", KEYS)
def test_a_side_phase_gives_the_backbone_no_gradient(key):
    distiller, optim = small_zoo.small_distiller(key, backbone_every=4, tail_blocks=None)
    arrived = gradients_of_a_step(distiller, optim)
    assert arrived and all(name.startswith(("side.", "features.")) for name in arrived)
    assert all(p.grad is None for p in distiller.backbone.parameters())


@pytest.mark.parametrize("key", KEYS)
def test_the_side_loss_adds_nothing_to_the_backbones_gradient(key):
    both, both_optim = small_zoo.small_distiller(key, logits_distillation=False)
    alone, alone_optim = small_zoo.small_distiller(key, method="norm")
    arrived = gradients_of_a_step(both, both_optim)
    expected = gradients_of_a_step(alone, alone_optim)
    names = {f"backbone.{k}" for k in both.trainable}
    assert names == expected.keys() == {n for n in arrived if n.startswith("backbone.")}
    for name in names:
        assert len(arrived[name]) == 1
        assert torch.equal(arrived[name][0], expected[name][0])


@pytest.fixture
def one_kernel():
    """nn.MultiheadAttention, which OpenCLIP uses, has a second one for forwards without gradients; it rounds apart."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("key", KEYS)
def test_the_backbone_loss_adds_nothing_to_the_sides_gradient(key, one_kernel):
    both, both_optim = small_zoo.small_distiller(key)
    alone, alone_optim = small_zoo.small_distiller(key, backbone_every=4, tail_blocks=None)
    arrived = gradients_of_a_step(both, both_optim)
    expected = gradients_of_a_step(alone, alone_optim)
    assert expected.keys() == {n for n in arrived if not n.startswith("backbone.")}
    for name in expected:
        assert len(arrived[name]) == 1
        assert torch.equal(arrived[name][0], expected[name][0])


@pytest.mark.parametrize("key", KEYS)
def test_what_the_side_teaches_reaches_the_backbone_as_a_loss_of_its_own(key):
    taught, taught_optim = small_zoo.small_distiller(key)
    alone, alone_optim = small_zoo.small_distiller(key, logits_distillation=False)
    arrived, expected = gradients_of_a_step(taught, taught_optim), gradients_of_a_step(alone, alone_optim)
    head = next(f"backbone.{k}" for k in taught.adapter.head_parameters())
    assert not torch.equal(arrived[head][0], expected[head][0])


@pytest.mark.parametrize("tail_blocks", [0, 1])
@pytest.mark.parametrize("key", KEYS)
def test_between_backbone_phases_the_tail_learns_from_the_very_gradients_of_a_whole_one(key, tail_blocks, one_kernel):
    between, between_optim = small_zoo.small_distiller(key, backbone_every=4, tail_blocks=tail_blocks)
    whole, whole_optim = small_zoo.small_distiller(key)
    before = small_zoo.snapshot(between.backbone)
    arrived, expected = gradients_of_a_step(between, between_optim), gradients_of_a_step(whole, whole_optim)
    taught = {n for n in arrived if n.startswith("backbone.")}
    tail = set(between.adapter.tail_parameters())
    if tail_blocks:
        tail |= {n for n in between.trainable if n.startswith(f"{between.adapter.named_blocks[-1][0]}.")}
    assert taught == {f"backbone.{n}" for n in tail} < {n for n in expected if n.startswith("backbone.")}
    for name in taught:
        assert len(arrived[name]) == 1
        assert torch.equal(arrived[name][0], expected[name][0])
    assert small_zoo.changed(before, between.backbone) <= tail
    assert all(p.requires_grad for p in between.trainable.values())


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_a_step_with_exact_gradients_is_plain_norm_tunings_bit_for_bit(key):
    distiller, optim = small_zoo.small_distiller(key, method="norm", recompute=True)
    plain = small_zoo.small(key)
    trained = {**plain.norm_parameters(), **plain.head_parameters()}
    for name, p in plain.model.named_parameters():
        p.requires_grad_(name in trained)
    groups = [
        {"params": list(plain.norm_parameters().values()), "weight_decay": 0.0},
        {"params": list(plain.head_parameters().values()), "weight_decay": 0.05},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    for seed in range(2):
        batch = small_zoo.batch_of(plain, seed=seed)
        loss = F.cross_entropy(plain.forward(batch["inputs"]), batch["labels"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert torch.equal(step(distiller, optim, seed)["backbone/task"], loss.detach())
    assert not small_zoo.changed(small_zoo.snapshot(plain.model), distiller.backbone)


def test_the_backbone_is_updated_at_every_kth_step_and_taught_after_the_warm_up():
    given = {"backbone_every": 2, "tail_blocks": None, "warmup": 0.5}
    distiller, optim = small_zoo.small_distiller("hf-vit", max_steps=8, **given)
    seen = []
    for seed in range(8):
        before = small_zoo.snapshot(distiller.backbone)
        logs = step(distiller, optim, seed)
        assert bool(small_zoo.changed(before, distiller.backbone)) is ("backbone/task" in logs)
        seen.append(("backbone/task" in logs, "backbone/distillation" in logs))
    assert seen == [(False, False), (True, False)] * 2 + [(False, False), (True, True)] * 2


@pytest.mark.parametrize("norm_gradient", ["exact", "local"])
def test_the_tail_moves_at_every_step_and_the_rest_at_every_kth_optimiser_step(norm_gradient):
    given = {"norm_gradient": norm_gradient, "backbone_every": 2, "accumulate": 2}
    distiller, optim = small_zoo.small_distiller("mm-vit", **given)
    moving = []
    for seed in range(8):
        before = small_zoo.snapshot(distiller.backbone)
        step(distiller, optim, seed)
        now = small_zoo.changed(before, distiller.backbone)
        moving.append((bool(now & distiller.phases.tail.keys()), bool(now - distiller.phases.tail.keys())))
    assert moving == [(False, False), (True, False), (False, False), (True, True)] * 2


@pytest.mark.parametrize("norm_gradient", ["exact", "local"])
def test_gradients_of_two_batches_make_one_update_of_each_path(norm_gradient):
    distiller, optim = small_zoo.small_distiller("mm-vit", norm_gradient=norm_gradient, accumulate=2)
    before = small_zoo.snapshot(distiller)
    moving = []
    for seed in range(4):
        step(distiller, optim, seed)
        now = small_zoo.changed(before, distiller)
        before = small_zoo.snapshot(distiller)
        moving.append((any(k.startswith("side.") for k in now), any(k.startswith("backbone.") for k in now)))
    assert moving == [(False, False), (True, True)] * 2


def test_the_sides_forward_leaves_the_backbone_in_eval_mode_and_itself_in_training():
    distiller, _ = small_zoo.small_distiller("mm-resnet")
    for mode in (True, False, True):
        distiller.train(mode)
        assert not any(m.training for m in distiller.backbone.modules())
        assert distiller.side.training is mode


def test_masks_are_drawn_from_the_step_and_from_no_global_state():
    losses = []
    for seed in (1, 2):
        distiller, optim = small_zoo.small_distiller("hf-vit", backbone_every=4)
        torch.manual_seed(seed)
        losses.append([float(step(distiller, optim, 0)["side/generation_2"]) for _ in range(2)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]


def test_predictions_hold_both_paths_in_evaluation():
    distiller, _ = small_zoo.small_distiller("mm-vit")
    inputs, labels = small_zoo.inputs_of(distiller.adapter), small_zoo.labels_of()
    rows = distiller.val_step({"inputs": inputs, "labels": labels})
    with torch.no_grad():
        assert torch.equal(torch.stack([r["backbone"] for r in rows]), distiller.adapter.forward(inputs))
    assert [int(r["label"]) for r in rows] == labels.tolist()
    assert torch.stack([r["side"] for r in rows]).shape == (4, 5)
    assert small_zoo.small_distiller("mm-vit", method="norm")[0](inputs).keys() == {"backbone"}


def poison_image(distiller: Distiller) -> None:
    distiller.adapter.model.backbone.patch_embed.projection.bias.data.fill_(math.inf)


def poison_head(distiller: Distiller) -> None:
    distiller.adapter.model.head.layers.head.weight.data[0, 0] = math.nan


def poison_alignment(distiller: Distiller) -> None:
    distiller.features.alignments["0"].up.weight.data[0] = math.inf


def poison_side_head(distiller: Distiller) -> None:
    distiller.side.head.output.bias.data[0] = math.nan


@pytest.mark.parametrize(
    ("poison", "term"),
    [
        (poison_image, "side/task"),
        (poison_side_head, "side/task"),
        (poison_alignment, "side/imitation_0"),
        (poison_head, "backbone/task"),
    ],
)
@pytest.mark.parametrize("norm_gradient", ["exact", "local"])
def test_a_loss_that_is_not_finite_names_step_and_term_and_changes_nothing(poison, term, norm_gradient):
    distiller, optim = small_zoo.small_distiller("mm-vit", norm_gradient=norm_gradient)
    step(distiller, optim)
    poison(distiller)
    before = small_zoo.snapshot(distiller)
    moments = {n: [t.clone() for s in w.optimizer.state.values() for t in s.values()] for n, w in optim.items()}
    with pytest.raises(NonFiniteLossError, match=rf"step 2: the loss term {term} is (nan|inf)"):
        step(distiller, optim, 1)
    after = distiller.state_dict()
    assert not [k for k, v in before.items() if not torch.equal(v.nan_to_num(7), after[k].nan_to_num(7))]
    for name, wrapper in optim.items():
        state = [t for s in wrapper.optimizer.state.values() for t in s.values()]
        assert all(torch.equal(a, b) for a, b in zip(state, moments[name], strict=True))
    assert not [n for n, p in distiller.named_parameters() if p.grad is not None and p.grad.any()]


def test_training_goes_on_after_a_refused_batch_as_if_it_had_not_been():
    plain, plain_optim = small_zoo.small_distiller("mm-vit", norm_gradient="local")
    refused, refused_optim = small_zoo.small_distiller("mm-vit", norm_gradient="local")
    bad = small_zoo.batch_of(refused.adapter)
    bad["inputs"]["image"][0, 0, 0, 0] = math.nan
    for seed in range(2):
        step(plain, plain_optim, seed)
        with pytest.raises(NonFiniteLossError):
            refused.train_step(bad, refused_optim)
        step(refused, refused_optim, seed)
    assert not small_zoo.changed(small_zoo.snapshot(plain), refused)


@pytest.mark.parametrize("layers", [{"shallow": [0, 3]}, {"deep": [-4]}])
@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_a_layer_out_of_range_is_refused_before_anything_is_trained(key, layers):
    with pytest.raises(ValueError, match=r"layer (3|-4) was asked for, but the backbone has 3 blocks: use 0 to 2"):
        small_zoo.small_distiller(key, **layers)
