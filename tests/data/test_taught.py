"""Labelled and unlabelled examples together: which comes where, with which of a coach's outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdpd_plugins.data import Collate, LabelledDataset, TaughtCollate, TaughtDataset, load_source, load_unlabelled
from mdpd_plugins.data import make_transform as augmentation

DIGITS = {"type": "packaged", "name": "digits", "train_size": 6, "val_size": 4, "test_size": 4}


@pytest.fixture(scope="module")
def parts():
    source = load_source(DIGITS, "train")
    more = load_unlabelled({"type": "rest", "size": 5}, DIGITS, source)
    transform = augmentation(source, "crop")
    return LabelledDataset(source, transform, seed=0, train=True), LabelledDataset(more, transform, seed=1, train=True)


def same(first, second):
    return np.array_equal(np.asarray(first), np.asarray(second))


def test_labelled_ones_come_several_times_an_epoch_each_time_as_another_view(parts):
    labelled, unlabelled = parts
    outputs = torch.randn(11, 10)
    taught = TaughtDataset(labelled, unlabelled, outputs, repeats=3)
    assert len(taught) == taught.epoch_stride == 3 * 6 + 5
    views = []
    for epoch in range(2):
        for repeat in range(3):
            (item, label), said, known = taught[epoch * 23 + repeat * 6 + 4]
            assert known and torch.equal(said, outputs[4]) and label == labelled[4][1]
            assert same(item, labelled[(epoch * 3 + repeat) * 6 + 4][0])
            views.append(np.asarray(item).tobytes())
        (item, _), said, known = taught[epoch * 23 + 18 + 2]
        assert not known and torch.equal(said, outputs[6 + 2]) and same(item, unlabelled[epoch * 5 + 2][0])
    assert len(set(views)) > 3  # two crops of a small picture may be the same


def test_without_repeats_and_without_others_it_is_each_example_once(parts):
    labelled, _ = parts
    taught = TaughtDataset(labelled, None, torch.zeros(6, 10))
    assert len(taught) == 6
    for index in (0, 5, 6, 17):
        assert same(taught[index][0][0], labelled[index][0])
    batch = TaughtCollate(Collate(lambda items: {"count": torch.tensor(len(items))}))([taught[0], taught[1]])
    assert batch["labelled"].tolist() == [True, True] and batch["teacher"].shape == (2, 10)
