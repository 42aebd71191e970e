"""Shallow and deep layers: given, as a share of the depth, or measured after the warm-up and kept."""

import pytest
import small_zoo
import torch

from mdpd_plugins.engine.batch_parts import whole_piece
from mdpd_plugins.engine.split import agreement, change_point, resolve_layers
from mdpd_plugins.registry import CapabilityError


@pytest.mark.parametrize(
    ("given", "from_end", "expected"),
    [
        ([0, 1], False, [0, 1]),
        ([-1], True, [7]),
        ([3, 0, 3], False, [0, 3]),
        (0.25, False, [0, 1]),
        (0.25, True, [6, 7]),
        (0.0, True, []),
        (1.0, False, list(range(8))),
    ],
)
def test_layers_from_lists_and_shares(given, from_end, expected):
    assert resolve_layers(given, [range(8)], from_end=from_end) == expected


@pytest.mark.parametrize(
    ("values", "split"),
    [
        ([0.9, 0.9, 0.1, 0.1], 2),
        ([0.95, 0.9, 0.92, 0.3, 0.2, 0.25], 3),
        ([0.9, 0.2, 0.2, 0.2, 0.2], 1),
        ([0.9, 0.9, 0.9, 0.9, 0.1], 4),
        ([0.8, 0.75, 0.7, 0.3, 0.35, 0.2, 0.25, 0.3], 3),
        ([0.5, 0.4], 1),
        ([0.5], 1),
    ],
)
def test_the_change_point_is_where_the_sequence_falls_apart(values, split):
    assert change_point(values) == split


def test_agreement_is_the_cosine_of_rows_of_head_averages():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(2, 4, 5, 5, generator=generator).softmax(-1)
    student = torch.rand(2, 3, 5, 5, generator=generator).softmax(-1)
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    a, b = teacher.mean(1), student.mean(1)
    cosine = (a * b).sum(-1) / (a.square().sum(-1).sqrt() * b.square().sum(-1).sqrt())
    torch.testing.assert_close(agreement(teacher, student), cosine.mean())
    torch.testing.assert_close(agreement(teacher, student, valid), cosine[valid].mean())
    torch.testing.assert_close(agreement(teacher, teacher), torch.tensor(1.0))
    apart = torch.eye(5).expand(2, 1, 5, 5)
    assert float(agreement(apart, apart.roll(1, -1))) == 0


def test_layers_with_other_numbers_of_tokens_are_each_divided_by_their_own():
    generator = torch.Generator().manual_seed(0)
    piece = whole_piece(2)
    for tokens in (5, 3):
        teacher, student = (torch.rand(2, 4, tokens, tokens, generator=generator).softmax(-1) for _ in range(2))
        torch.testing.assert_close(agreement(teacher, student, piece=piece), agreement(teacher, student))


AUTO = {"shallow": "auto", "deep": "auto", "auto_batches": 2, "warmup": 0.25, "max_steps": 8}


def run(distiller, optim, steps):
    logs = []
    for seed in steps:
        logs.append(distiller.train_step(small_zoo.batch_of(distiller.adapter, seed=seed), optim))
    return logs


def kinds(logs) -> tuple[set[int], set[int]]:
    """(imitated, generated) layers of one step's terms."""
    found = [{int(k.rpartition("_")[2]) for k in logs if k.startswith(f"side/{kind}_")} for kind in
             ("imitation", "generation")]  # fmt: skip
    return found[0], found[1]


@pytest.mark.parametrize("key", [*small_zoo.ONE_OF_EACH, "hf-minilm", "oc-text"])
def test_the_split_is_measured_over_some_batches_after_the_warm_up(key):
    distiller, optim = small_zoo.small_distiller(key, **AUTO)
    every = set(range(len(distiller.adapter.blocks())))
    for seed in range(4):  # two of warm-up, two of measuring: everything is imitated
        assert distiller.layers.agreements.any() == (seed > 2)
        assert kinds(run(distiller, optim, [seed])[0]) == (every, set())
    split = change_point(distiller.layers.agreements.tolist())
    assert 1 <= split < len(every)
    assert all(0 < float(a) / 2 <= 1 for a in distiller.layers.agreements)
    measured = distiller.layers.agreements.clone()
    after = run(distiller, optim, range(4, 7))
    assert {(frozenset(a), frozenset(b)) for a, b in map(kinds, after)} == {
        (frozenset(range(split)), frozenset(every - set(range(split))))
    }
    assert torch.equal(distiller.layers.agreements, measured)  # once, and never again


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_measured_split_is_kept_in_the_state_dict_and_one_half_measured_goes_on(stop):
    whole, whole_optim = small_zoo.small_distiller("hf-vit", **AUTO)
    run(whole, whole_optim, range(6))
    first, first_optim = small_zoo.small_distiller("hf-vit", **AUTO)
    run(first, first_optim, range(stop))
    second, second_optim = small_zoo.small_distiller("hf-vit", **AUTO)
    # What a single step has measured is nothing to keep.
    assert not [name for name in first.state_dict() if name.endswith("measured")]
    second.load_state_dict(first.state_dict())
    for name, wrapper in second_optim.items():
        wrapper.load_state_dict(first_optim[name].state_dict())
    run(second, second_optim, range(stop, 6))
    assert second.layers.chosen() == whole.layers.chosen()
    assert not small_zoo.changed(small_zoo.snapshot(whole), second)


def test_without_hierarchy_everything_is_imitated_to_the_end():
    distiller, optim = small_zoo.small_distiller("hf-vit", **AUTO, hierarchy=False)
    logs = run(distiller, optim, range(6))
    assert {tuple(map(tuple, kinds(row))) for row in logs} == {((0, 1, 2), ())}


@pytest.mark.parametrize("key", ["mm-swin", "mm-resnet"])
def test_a_measured_split_is_refused_at_once_where_there_is_no_global_attention(key):
    with pytest.raises(CapabilityError, match="no global attention.*depth fraction instead of 'auto'"):
        small_zoo.small_distiller(key, shallow="auto", deep="auto")


@pytest.mark.parametrize("method", ["ladder", "norm", "mdpd_no_feature"])
def test_what_distils_no_features_needs_no_attention_maps(method):
    distiller, optim = small_zoo.small_distiller("mm-swin", method=method, shallow="auto", deep="auto")
    logs = run(distiller, optim, range(2))
    assert not [k for k in logs[-1] if "imitation" in k or "generation" in k]
    assert distiller.layers.chosen()[1] == []


def test_shares_of_the_depth_choose_the_terms():
    distiller, optim = small_zoo.small_distiller("hf-vit", shallow=0.34, deep=0.34)
    assert kinds(run(distiller, optim, [0])[0]) == ({0}, {2})
