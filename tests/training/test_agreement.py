"""How far two paths agree, on logits that can be counted by hand."""

from __future__ import annotations

import pytest
import torch

from mdpd_plugins.training.agreement import agreement

SURE, UNSURE = [0.0, 4.0, 0.0], [1.0, 0.0, 0.0]  # of class 1, and of class 0


def test_shares_of_the_mean_of_either_and_of_two_opinions():
    cases = [
        # label, backbone, side: the mean follows the surer one
        (1, SURE, SURE),
        (1, UNSURE, SURE),
        (0, UNSURE, SURE),
        (2, SURE, UNSURE),
    ]
    samples = [
        {"label": torch.tensor(label), "backbone": torch.tensor(backbone), "side": torch.tensor(side)}
        for label, backbone, side in cases
    ]
    assert agreement(samples) == pytest.approx({"mean": 2 / 4, "either": 3 / 4, "differ": 3 / 4})
