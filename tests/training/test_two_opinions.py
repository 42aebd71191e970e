"""How far two paths agree, on logits that can be counted by hand, and where a run says it."""

from __future__ import annotations

import pytest
import torch
from running import trained, write_config

from mdpd_plugins.training.two_opinions import agreement

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


def test_a_runs_summary_has_them_where_two_paths_are_right_or_wrong(tmp_path):
    both = trained(write_config(tmp_path / "both"), tmp_path / "run")
    metrics, paths = both["metrics"], both["paths"]
    best = max(metrics["backbone/accuracy"], metrics["side/accuracy"])
    assert best <= paths["either"] <= metrics["backbone/accuracy"] + metrics["side/accuracy"]
    assert abs(metrics["backbone/accuracy"] - metrics["side/accuracy"]) <= paths["differ"]
    assert paths["mean"] * 16 == pytest.approx(round(paths["mean"] * 16))  # a share of 16 examples
    for method in ("norm", "ladder"):
        config = write_config(tmp_path / method, distill={"method": method})
        assert trained(config, tmp_path / f"{method} run")["paths"] == {}
