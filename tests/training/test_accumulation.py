"""Several batches in one optimiser step, in both paths, whatever their rhythm."""

from __future__ import annotations

import pytest
import torch
from running import trained, weights, write_config

STEPS = 10


def run(tmp_path, **optim):
    """Train, and return the folder with a checkpoint of every step."""
    # A second hook of mmengine's, which keeps all it writes.
    keep = {"type": "CheckpointHook", "interval": 1, "by_epoch": False, "out_dir": str(tmp_path / "every")}
    config = write_config(
        tmp_path,
        data={"batch_size": 4},
        distill={"reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.0},
        optim=optim,
        train={"max_steps": STEPS},
        custom_hooks=[keep],
    )
    trained(config, tmp_path / "run")
    return tmp_path / "every" / "run"


def moved(folder, prefix):
    """Steps after which weights under a prefix had changed."""
    states = [weights(folder, step) for step in range(1, STEPS + 1)]
    keys = [k for k in states[0] if k.startswith(prefix)]
    return [
        step
        for step, (before, after) in enumerate(zip(states, states[1:], strict=False), 2)
        if any(not torch.equal(before[k], after[k]) for k in keys)
    ]


def test_each_path_steps_after_as_many_of_its_own_batches(tmp_path, capsys):
    work_dir = run(tmp_path, accumulate=3)
    # Ten batches: steps of three, and one that takes the rest. The backbone's turn is every second of them, and the
    # output layer's is each.
    assert moved(work_dir, "side.") == [3, 6, 9, 10]
    assert moved(work_dir, "backbone.classifier.") == [3, 6, 9, 10]
    assert moved(work_dir, "backbone.vit.layers.") == [6, 10]
    capsys.readouterr()


def test_without_accumulation_every_batch_counts_at_once(tmp_path, capsys):
    work_dir = run(tmp_path)
    assert moved(work_dir, "side.") == moved(work_dir, "backbone.classifier.") == list(range(2, 11))
    assert moved(work_dir, "backbone.vit.layers.") == [2, 4, 6, 8, 10]
    capsys.readouterr()


@pytest.mark.parametrize("norm_gradient", ["exact", "local"])
def test_two_accumulated_batches_teach_what_one_of_their_size_does(tmp_path, capsys, norm_gradient):
    source = {"type": "packaged", "name": "digits", "train_size": 16, "val_size": 8}
    # Imitation only: the masks of generation are drawn for each batch anew.
    distill = {"reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0}
    distill |= {"hierarchy": False, "norm_gradient": norm_gradient}
    ends = []
    # The step of two batches comes where the cosine has halved the rates.
    for size, accumulate, rate in ((8, 1, 1e-3), (4, 2, 2e-3)):
        folder = tmp_path / str(size)
        optim = {"accumulate": accumulate, "side_lr": rate, "norm_lr": rate, "head_lr": rate}
        data, train = {"source": source, "batch_size": size}, {"max_steps": accumulate}
        trained(write_config(folder, data=data, distill=distill, optim=optim, train=train), folder / "run")
        ends.append(weights(folder / "run", accumulate))
    capsys.readouterr()
    # One optimiser step on the same samples; Adam's first step has the size of its rate, so signs tell.
    for key, value in ends[0].items():
        if key not in ("step",) and not key.endswith("qkv.bias"):
            torch.testing.assert_close(ends[1][key], value, rtol=0, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")
