"""A coach's outputs as a teacher, and the linear reader of all layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import small_zoo
import torch
import torch.nn.functional as F

from mdpd_plugins.adapters import Layout
from mdpd_plugins.engine import Taught
from mdpd_plugins.engine.reader import fitted, pooled_states
from mdpd_plugins.engine.side import TowerStates
from mdpd_plugins.registry.errors import ConfigError, DataError, UsageError

KNOWN = torch.tensor([True, False, True, False])


def student(key="hf-vit", **settings):
    return small_zoo.small_distiller(key, method="mdpd_coach", **settings)[0]


def taught(known=KNOWN, seed=0):
    outputs = torch.randn(4, len(small_zoo.CLASSES), generator=torch.Generator().manual_seed(seed))
    return Taught(3 * outputs, known)


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-vit", "oc-image"])
def test_losses_are_the_mean_over_all_samples_of_what_each_one_has(key):
    distiller = student(key, labels_weight=0.5, logits_weight=2.0, kl_temperature=3.0)
    batch, coach = small_zoo.batch_of(distiller.adapter), taught()
    logits = distiller(batch["inputs"])["backbone"]
    terms = distiller.backward(batch["inputs"], batch["labels"], taught=coach)
    own = F.cross_entropy(logits, batch["labels"], reduction="none")
    apart = F.kl_div(
        F.log_softmax(logits / 3, 1), F.log_softmax(coach.outputs / 3, 1), reduction="none", log_target=True
    ).sum(1)
    assert terms.keys() == {"backbone/task", "backbone/distillation"}
    assert float(terms["backbone/task"]) == pytest.approx(0.5 * float(own[KNOWN].sum()) / 4, rel=1e-5)
    assert float(terms["backbone/distillation"]) == pytest.approx(2 * 9 * float(apart.mean()), rel=1e-5)


def test_an_example_without_a_label_counts_where_the_coach_is_sure():
    distiller = student(confidence=0.9)
    batch = small_zoo.batch_of(distiller.adapter)
    sure, unsure = torch.tensor([9.0, 0, 0, 0, 0]), torch.tensor([0.5, 0, 0, 0, 0])
    outputs = torch.stack([unsure, unsure, unsure, sure])
    logits = distiller(batch["inputs"])["backbone"]
    terms = distiller.backward(batch["inputs"], batch["labels"], taught=Taught(outputs, KNOWN))
    t = 2.0
    apart = F.kl_div(
        F.log_softmax(logits / t, 1), F.log_softmax(outputs / t, 1), reduction="none", log_target=True
    ).sum(1)
    # Sample 1 has neither a label nor a coach that is sure; samples 0 and 2 have labels.
    assert float(terms["backbone/distillation"]) == pytest.approx(t**2 * float(apart[[0, 2, 3]].sum()) / 4, rel=1e-5)


@pytest.mark.parametrize("known", [KNOWN, ~KNOWN & False, torch.ones(4, dtype=torch.bool)])
def test_pieces_of_a_batch_add_up_to_its_gradients(known):
    found = []
    for size in (None, 1, 3):
        distiller = student(sub_batch=size)
        batch = small_zoo.batch_of(distiller.adapter)
        terms = distiller.backward(batch["inputs"], batch["labels"], taught=taught(known))
        found.append((terms, {k: p.grad for k, p in distiller.trainable.items()}))
    for terms, gradients in found[1:]:
        assert terms.keys() == found[0][0].keys()
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(terms, found[0][0])


def test_labels_of_samples_that_have_none_do_not_matter():
    found = []
    for other in (0, 2):
        distiller = student()
        batch = small_zoo.batch_of(distiller.adapter)
        labels = torch.where(KNOWN, batch["labels"], other)
        found.append(distiller.backward(batch["inputs"], labels, taught=taught()))
    assert found[0] == found[1]


def test_what_is_refused():
    distiller = student()
    batch, coach = small_zoo.batch_of(distiller.adapter), taught()
    inputs, labels = batch["inputs"], batch["labels"]
    with pytest.raises(DataError, match=r"shape \(4, 2\) with labelled \(4,\) were given, and \(4, 5\)"):
        distiller.backward(inputs, labels, taught=Taught(coach.outputs[:, :2], KNOWN))
    for outputs, known in (
        (coach.outputs.repeat(1, 2), KNOWN),  # more outputs than the student has
        (coach.outputs.repeat(2, 1), KNOWN),
        (coach.outputs, KNOWN[:3]),
        (coach.outputs, KNOWN.unsqueeze(1)),
    ):
        with pytest.raises(DataError, match=r"were given, and \(4, 5\) with \(4,\) is needed"):
            distiller.backward(inputs, labels, taught=Taught(outputs, known))
    with pytest.raises(DataError, match=r"labelled is bool, but torch.float32 and torch.int64"):
        distiller.backward(inputs, labels, taught=Taught(coach.outputs, KNOWN.long()))
    assert int(distiller.step) == 0 and all(p.grad is None for p in distiller.parameters())
    both, _ = small_zoo.small_distiller("hf-vit")
    with pytest.raises(UsageError, match="students without a side network"):
        both.backward(inputs, labels, taught=coach)
    with pytest.raises(ConfigError, match="learns first and teaches"):
        small_zoo.small_distiller("hf-vit", coach="ladder")


@pytest.mark.parametrize("examples", [12, 80])
def test_the_reader_is_scikit_learns_logistic_regression(examples):
    """Also where it is solved in the span of fewer examples than features."""
    from sklearn.linear_model import LogisticRegression

    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(examples, 30, generator=draws), torch.arange(examples) % 3
    x[:, 4] = 1.5  # says nothing
    new = torch.randn(50, 30, generator=draws)
    reader = fitted("single", x, y, 3, strength=10.0)
    mean, scale = x.mean(0), x.std(0, unbiased=False)
    scale[4] = math.inf

    def standardised(v):
        return ((v - mean) / scale / 30**0.5).double().numpy()

    model = LogisticRegression(C=10.0, max_iter=2000, tol=1e-8).fit(standardised(x), y.numpy())
    ours = reader.linear((new - reader.mean) * reader.scale).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours, model.predict_proba(standardised(new)), atol=2e-3)


def test_the_reader_knows_numbers_several_labels_and_classes_it_never_saw():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=draws)

    def outputs(kind, y, count):
        reader = fitted(kind, x, y, count, strength=1000.0)
        return reader.linear((x - reader.mean) * reader.scale)

    number = 2 * x[:, 0] - x[:, 3] + 5
    torch.testing.assert_close(outputs("float", number, 1)[:, 0], number, atol=0.1, rtol=0.05)
    several = torch.stack([x[:, 0] > 0, x[:, 1] > 0, torch.zeros(60, dtype=torch.bool)], 1)
    assert ((outputs("multi", several.float(), 3) > 0) == several).float().mean() > 0.95
    two = outputs("single", (x[:, 0] > 0).long() * 2, 4)
    assert set(two.argmax(1).tolist()) == {0, 2}
    assert ((two.argmax(1) == 2) == (x[:, 0] > 0)).float().mean() > 0.95
    assert set(outputs("single", torch.full((60,), 3), 4).argmax(1).tolist()) == {3}
    binary = outputs("single", (x[:, 0] > 0).long(), 2)
    assert (binary.argmax(1) == (x[:, 0] > 0)).float().mean() > 0.95


def test_what_padding_holds_has_no_influence_on_what_is_read():
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    layout = Layout(prefix=1, grid=None)

    def read(h):
        return pooled_states([TowerStates(h, [h, 2 * h], [layout] * 3, valid)])

    other = hidden.clone()
    other[1, 2:] = 100.0
    assert torch.equal(read(hidden), read(other))
    assert read(hidden).shape == (2, 2 * (8 + 8))
    # One layer's mean token over real tokens behind the prefix.
    mean = F.layer_norm(hidden[1], (8,))[1:2].mean(0)
    torch.testing.assert_close(read(hidden)[1, :8], mean)
