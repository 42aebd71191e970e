"""Logits losses against formulas written out one number at a time."""

import math
from dataclasses import replace

import pytest
import torch

from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import bce, kl, mse, nkd, similarity_kl
from mdpd_plugins.tasks import Prediction


def draw(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, columns, generator=generator)


def softmax(row, temperature=1.0):
    e = [math.exp(v / temperature) for v in row]
    return [v / sum(e) for v in e]


def nkd_written_out(student, teacher, labels, gamma, tau):
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        others = [i for i in range(len(s)) if i != y]
        rest_s, rest_t = (softmax([row[i] for i in others], tau) for row in (s, t))
        non_target = -sum(b * math.log(a) for a, b in zip(rest_s, rest_t, strict=True))
        total += -softmax(t)[y] * math.log(softmax(s)[y]) + gamma * tau**2 * non_target
    return total / len(labels)


def kl_written_out(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize(("gamma", "tau"), [(1.0, 1.0), (1.5, 2.0), (0.0, 1.0)])
def test_nkd_is_its_formula(gamma, tau):
    student, teacher, labels = draw(6, 5, 0), draw(6, 5, 1), torch.tensor([0, 1, 2, 3, 4, 0])
    assert float(nkd(student, teacher, labels, gamma, tau)) == pytest.approx(
        nkd_written_out(student, teacher, labels, gamma, tau), rel=1e-5
    )


def test_the_non_target_term_of_two_classes_is_zero():
    student, teacher, labels = draw(4, 2, 0), draw(4, 2, 1), torch.tensor([0, 1, 1, 0])
    target_only = nkd_written_out(student, teacher, labels, 0.0, 1.0)
    for gamma in (0.0, 1.0, 100.0):
        assert float(nkd(student, teacher, labels, gamma, 1.0)) == pytest.approx(target_only, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_kl_is_its_formula_and_zero_for_equal_logits(temperature):
    student, teacher = draw(6, 3, 0), draw(6, 3, 1)
    assert float(kl(student, teacher, temperature)) == pytest.approx(
        kl_written_out(student, teacher, temperature), rel=1e-4
    )
    assert float(kl(student, student + 3.0, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_bce_is_its_formula():
    student, teacher = draw(4, 3, 0), draw(4, 3, 1)
    sigmoid = [1 / (1 + math.exp(-v)) for v in student.flatten().tolist()]
    wanted = [1 / (1 + math.exp(-v)) for v in teacher.flatten().tolist()]
    terms = [-(t * math.log(s) + (1 - t) * math.log(1 - s)) for s, t in zip(sigmoid, wanted, strict=True)]
    assert float(bce(student, teacher)) == pytest.approx(sum(terms) / 12, rel=1e-5)


def test_mse_is_its_formula():
    student, teacher = draw(4, 2, 0), draw(4, 2, 1)
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    assert float(mse(student, teacher)) == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 8, rel=1e-5)


def test_similarity_kl_averages_rows_and_columns():
    student, teacher = draw(4, 4, 0), draw(4, 4, 1)
    rows, columns = kl_written_out(student, teacher, 2.0), kl_written_out(student.T, teacher.T, 2.0)
    assert float(similarity_kl(student, teacher, 2.0)) == pytest.approx((rows + columns) / 2, rel=1e-4)
    assert rows != pytest.approx(columns, rel=1e-3)


LOSSES = {
    "nkd": lambda s, t: nkd(s, t, torch.tensor([0, 1, 2]), 1.0, 1.0),
    "kl": lambda s, t: kl(s, t, 2.0),
    "bce": bce,
    "mse": mse,
    "similarity": lambda s, t: similarity_kl(s, t, 1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_student_gets_a_gradient_and_the_teacher_none(name):
    student, teacher = draw(3, 3, 0).requires_grad_(), draw(3, 3, 1).requires_grad_()
    loss = LOSSES[name](student, teacher)
    assert loss.shape == ()
    loss.backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_following_the_gradient_brings_the_student_to_the_teacher(name):
    student, teacher = draw(3, 3, 0).requires_grad_(), draw(3, 3, 1)
    optimiser = torch.optim.Adam([student], lr=0.1)
    start = float(LOSSES[name](student.detach(), teacher))
    for _ in range(200):
        optimiser.zero_grad()
        loss = LOSSES[name](student, teacher)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < start
    if name != "nkd":  # which weighs the label's own probability besides
        centred = [x - x.mean(1, keepdim=True) for x in (student.detach(), teacher)]
        pair = (student.detach(), teacher) if name in ("bce", "mse") else centred
        torch.testing.assert_close(*pair, atol=0.05, rtol=0.05)


def test_each_kind_of_task_is_distilled_by_the_loss_that_fits_it():
    settings = Settings(nkd_gamma=1.5, nkd_tau=2.0, kl_temperature=3.0, teacher="side")
    three, two, one = ([draw(3, n, seed) for seed in (0, 1)] for n in (3, 2, 1))
    labels = torch.tensor([0, 1, 1])
    cases = [
        (Prediction("single", "abc"), three, labels, nkd(*three, labels, 1.5, 2.0)),
        (Prediction("single", "ab"), two, labels, kl(*two, 3.0)),
        (Prediction("multi", "abc"), three, labels, bce(*three)),
        (Prediction("float", ()), one, labels, mse(*one)),
    ]
    for task, (student, teacher), y, expected in cases:
        assert torch.equal(task.distillation(student, teacher, y, settings), expected)
        # A mean of both paths is the teacher that stands halfway between.
        halfway = (student.detach() + teacher) / 2
        mean = task.distillation(student, teacher, y, replace(settings, teacher="mean"))
        assert torch.equal(mean, task.distillation(student, halfway, y, settings)) and not torch.equal(mean, expected)
        own = task.distillation(student, teacher, y, replace(settings, teacher="backbone"))
        assert torch.equal(own, task.distillation(student, student.detach(), y, settings))
