"""Labels as data sets hold them: narrow integers, arrays and lists are taken; what no loss could mean is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_zoo import inputs_of, labels_of, small

import mdpd_plugins as mdpd
from mdpd_plugins.registry import ConfigError, DataError

QUICK = {"steps": 1, "reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0, "method": "mdpd"}


def losses(labels, task: str = "single", outputs: int = 5):
    adapter = small("hf-vit", num_classes=outputs)
    torch.manual_seed(0)
    with mdpd.distill(adapter, task=task, **QUICK) as student:
        return student.backward(inputs_of(adapter), labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_indices_of_any_integer_type_give_the_losses_of_int64(dtype):
    assert losses(labels_of().to(dtype)) == losses(labels_of())


@pytest.mark.parametrize(
    "given", [[0, 1, 2, 3], np.arange(4), np.arange(4, dtype=np.uint8)], ids=["list", "array", "u8"]
)
def test_lists_and_arrays_give_the_losses_of_a_tensor(given):
    assert losses(given) == losses(torch.arange(4))


def test_several_labels_may_be_integers_and_shares_but_nothing_outside_of_zero_and_one():
    marks = torch.eye(5)[:4]
    assert losses(marks.int(), "multi") == losses(marks, "multi")
    losses(0.9 * marks, "multi")
    for wrong in (3 * marks, -marks):
        with pytest.raises(DataError, match="each is 1 for yes, 0 for no"):
            losses(wrong, "multi")


def test_names_instead_of_numbers_are_refused():
    with pytest.raises(DataError, match="class names have to be numbered"):
        losses(["cat", "dog", "cat", "dog"])


def test_a_number_is_learned_by_one_output_and_several_are_refused_before_training():
    numbers = [0.5, 1.0, 2.0, 4.0]
    assert losses(numbers, "float", 1) == losses(torch.tensor(numbers), "float", 1)
    with pytest.raises(ConfigError, match="one number a sample, and there are 4 outputs"):
        losses(numbers, "float", 4)


def test_a_batch_of_no_samples_is_refused_and_changes_nothing():
    adapter = small("mm-resnet")
    student = mdpd.distill(adapter, **QUICK)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    with pytest.raises(DataError, match="no samples"):
        student.backward(torch.zeros(0, 3, 64, 64), torch.zeros(0, dtype=torch.int64))
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
