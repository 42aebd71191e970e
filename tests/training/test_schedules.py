"""`optim.schedule` and `optim.warmup`: rates by their formulas, and the same after a resume that changes them."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from running import main, write_config

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training import load_config
from mdpd_plugins.training.checkpoints import read_run
from mdpd_plugins.training.schedules import SCHEDULES, schedulers, started_anew

STEPS = 20


def build(schedule, warmup, wrapper):
    return [PARAM_SCHEDULERS.build({**one, "optimizer": wrapper}) for one in schedulers(schedule, warmup, STEPS)]


def wrapped(rate=0.5):
    return OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate))


def rates(schedule, warmup):
    wrapper = wrapped()
    found = build(schedule, warmup, wrapper)
    seen = []
    for _ in range(STEPS):
        seen.append(wrapper.param_groups[0]["lr"])
        for one in found:
            one.step()
    return seen


def formula(schedule, first, step):
    if step < first:
        return (step + 1) / first
    share = (step - first) / (STEPS - first)
    return {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share, "constant": 1.0}[schedule]


@pytest.mark.parametrize("warmup, first", [(0.0, 0), (0.05, 0), (0.25, 5)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_steps_rate_is_that_of_the_formula(schedule, warmup, first):
    wanted = [0.5 * formula(schedule, first, step) for step in range(STEPS)]
    assert rates(schedule, warmup) == pytest.approx(wanted)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_changed_schedule_is_where_it_would_be_had_it_been_chosen_first(schedule):
    wrapper = wrapped(rate=7.0)  # of before
    build("constant", 0.0, wrapper)
    started_anew(wrapper, [0.5], lambda: build(schedule, 0.25, wrapper), done=12, steps=STEPS)
    assert wrapper.param_groups[0]["lr"] == pytest.approx(0.5 * formula(schedule, 5, 12))


def test_a_run_follows_its_schedule_and_a_resume_follows_a_change(tmp_path, capsys):
    given = {"schedule": "linear", "warmup": 0.5, "side_lr": 0.008}
    config = write_config(tmp_path, optim=given, train={"max_steps": 8, "checkpoint_every": 3, "val_every": 8})
    run = [config, "--work-dir", tmp_path / "run"]
    assert main(run) == 0

    def rate(step):
        saved = read_run(tmp_path / "run" / f"iter_{step}.pth")
        return saved["optimizer"]["side"]["param_groups"][0]["lr"]

    assert rate(6) == pytest.approx(0.004)  # half of the way down from step 4
    assert main([*run, "--resume", "--cfg-options", "optim.schedule=constant", "train.max_steps=10"]) == 0
    assert rate(9) == pytest.approx(0.008)
    capsys.readouterr()


def test_a_schedule_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(ConfigError, match="optim.schedule='cosin' does not exist: did you mean 'cosine'"):
        load_config(write_config(tmp_path, optim={"schedule": "cosin"}))
