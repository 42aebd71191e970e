"""Metrics against figures worked out by hand, and where they are not defined."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.tasks import Prediction


@pytest.fixture(autouse=True)
def no_warning_reaches_the_screen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def logits_of(chosen: list[int], classes: int) -> torch.Tensor:
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(chosen), classes).float() - 1


def test_two_classes():
    truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])
    found = Prediction("single", "ab").metrics(logits_of([1, 1, 0, 1, 0, 0, 0, 0], 2), truth)
    # Of class 1: two hits, one false alarm, one miss; (2*4 - 1*1) / sqrt(3*3*5*5).
    assert found == pytest.approx({"accuracy": 6 / 8, "f1": 2 / 3, "matthews_correlation": 7 / 15})
    assert list(found)[0] == "accuracy"


def test_more_classes():
    truth = torch.tensor([0, 0, 1, 1, 2, 2])
    found = Prediction("single", "abcd").metrics(logits_of([0, 0, 1, 0, 1, 1], 4), truth)
    # F1 of a: 4/5, of b: 2/5, of c: 0; d occurs nowhere and does not count.
    assert found == pytest.approx({"accuracy": 0.5, "macro_f1": (4 / 5 + 2 / 5) / 3})


def test_several_labels():
    truth = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]])
    logits = torch.tensor([[2.0, -1, -1, -3], [-1, 3, 1, -3], [-2, -2, -1, -3]])
    found = Prediction("multi", "abcd").metrics(logits, truth)
    # Two hits, one false alarm, two misses. F1 of a: 2/3, of b: 2/3, of c and d: 0.
    # Average precision of a: 1 (ranked first and second), of b: (1 + 2/3) / 2 (first and third).
    expected = {"micro_f1": 4 / 7, "macro_f1": 1 / 3, "mean_average_precision": (1 + 5 / 6) / 2}
    assert found == pytest.approx(expected) and list(found) == list(expected)


def test_numbers():
    task = Prediction("float", ())
    found = task.metrics(torch.tensor([[1.0], [2.0], [3.0], [10.0]]), torch.tensor([2.0, 4.0, 6.0, 7.0]))
    assert list(found)[0] == "pearson"
    assert found["spearman"] == pytest.approx(1) and found["mse"] == pytest.approx((1 + 4 + 9 + 9) / 4)
    # Deviations -3, -2, -1, 6 and -2.75, -0.75, 1.25, 2.25: 22 / sqrt(50 * 14.75).
    assert found["pearson"] == pytest.approx(22 / math.sqrt(50 * 14.75))
    assert task.metrics(torch.tensor([[3.0], [2.0]]), torch.tensor([0.0, 1.0]))["pearson"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("kind", "classes", "logits", "labels", "zeros"),
    [
        ("single", "ab", logits_of([0, 0], 2), torch.tensor([0, 0]), {"f1", "matthews_correlation"}),
        ("single", "ab", logits_of([1, 1], 2), torch.tensor([0, 1]), {"matthews_correlation"}),
        ("single", "ab", logits_of([0, 0], 2), torch.tensor([1, 1]), {"accuracy", "f1", "matthews_correlation"}),
        ("single", "abc", logits_of([2, 2], 3), torch.tensor([0, 1]), {"accuracy", "macro_f1"}),
        (
            *("multi", "ab", -torch.ones(2, 2), torch.zeros(2, 2)),
            {"micro_f1", "macro_f1", "mean_average_precision"},
        ),
        ("multi", "ab", -torch.ones(2, 2), torch.tensor([[1.0, 0], [0, 0]]), {"micro_f1", "macro_f1"}),
        ("float", "", torch.full((3, 1), 0.1), torch.tensor([1.0, 2, 3]), {"pearson", "spearman"}),
        ("float", "", torch.tensor([[1.0], [2.0]]), torch.tensor([5.0, 5.0]), {"pearson", "spearman"}),
        ("float", "", torch.tensor([[1.0]]), torch.tensor([5.0]), {"pearson", "spearman"}),
        ("float", "", torch.zeros(2, 1), torch.zeros(2), {"pearson", "spearman", "mse"}),
    ],
)
def test_constant_predictions_and_labels_score_zero_where_nothing_is_defined(kind, classes, logits, labels, zeros):
    found = Prediction(kind, classes).metrics(logits, labels)
    assert all(math.isfinite(value) for value in found.values())
    assert {name for name, value in found.items() if value == 0} == zeros


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision(precision):
    logits, labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=precision), torch.tensor([[1.0, 0], [0, 1]])
    assert Prediction("multi", "ab").metrics(logits, labels)["mean_average_precision"] == 1
    assert Prediction("single", "ab").metrics(logits, torch.tensor([0, 1]))["f1"] == 1
    assert Prediction("float", "").metrics(logits[:, :1], torch.tensor([1.0, -1.0]))["spearman"] == pytest.approx(1)


def test_a_model_that_has_diverged_is_not_given_a_score():
    broken = torch.tensor([[math.nan], [1.0]])
    assert all(math.isnan(v) for v in Prediction("float", "").metrics(broken, torch.tensor([1.0, 2.0])).values())
    assert all(math.isnan(v) for v in Prediction("multi", "a").metrics(broken, torch.ones(2, 1)).values())


@pytest.mark.parametrize(
    ("kind", "classes", "asked", "main"),
    [
        ("single", "ab", None, "accuracy"),
        ("single", "abc", None, "accuracy"),
        ("multi", "ab", None, "micro_f1"),
        ("float", "", None, "pearson"),
        ("single", "ab", "matthews_correlation", "matthews_correlation"),
    ],
)
def test_the_main_metric(kind, classes, asked, main):
    task = Prediction(kind, classes, asked)
    assert task.main_metric == main
    outputs = torch.randn(4, task.num_outputs, generator=torch.Generator().manual_seed(0))
    labels = {"single": torch.tensor([0, 1, 1, 0]), "multi": outputs.sign(), "float": torch.arange(4.0)}[kind]
    assert main in task.metrics(outputs, labels)


def test_a_metric_that_the_labels_do_not_have():
    with pytest.raises(ConfigError, match="metric 'f1' is none of this data's: known: accuracy, macro_f1"):
        Prediction("single", "abc", "f1")
