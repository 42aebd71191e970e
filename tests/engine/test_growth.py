"""Hundreds of steps, and of models that are adapted, trained and faded, leave nothing behind that grows."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import torch
from small_zoo import batch_of, small, small_distiller
from torch import nn

import mdpd_plugins as mdpd


def held(*modules: nn.Module) -> dict[str, int]:
    """What could grow: live tensors, hooks of these modules and of all, open files and threads."""
    gc.collect()
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_state_dict_hooks",
        "_load_state_dict_pre_hooks",
    )
    own = sum(len(getattr(m, kind)) for module in modules for m in module.modules() for kind in kinds)
    everywhere = torch.nn.modules.module
    shared = sum(len(getattr(everywhere, f"_global{kind}", ())) for kind in kinds[:3])
    return {
        "tensors": sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()),
        "hooks": own + shared,
        "files": len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0,
        "threads": threading.active_count(),
    }


@pytest.mark.parametrize("key", ["hf-vit", pytest.param("mm-resnet", marks=pytest.mark.slow)])
def test_500_steps_hold_what_a_few_hold(key):
    distiller, optim = small_distiller(key, max_steps=520, backbone_every=2, warmup=0.01)
    batch = batch_of(distiller.adapter, batch=2)
    for _ in range(20):
        distiller.train_step(batch, optim)
    before = held(distiller)
    for _ in range(500):
        distiller.train_step(batch, optim)
    assert held(distiller) == before


@pytest.mark.parametrize("method", [pytest.param("mdpd", marks=pytest.mark.slow), "mdpd_low_rank"])
def test_100_models_that_are_adapted_trained_and_faded_leave_nothing(method):
    def cycle() -> None:
        adapter = small("hf-vit")
        batch = batch_of(adapter, batch=2)
        student = mdpd.distill(adapter, steps=1, method=method, reduction=4, bottleneck=8)
        with adapter.capture(attention=True):
            adapter.forward(batch["inputs"])
        student.backward(batch["inputs"], batch["labels"])
        mdpd.fade(student, batch["inputs"])

    for _ in range(3):
        cycle()
    before = held()
    for _ in range(100):
        cycle()
    assert held() == before


def test_100_times_on_one_model_and_closed_leave_it_as_it_came():
    adapter = small("hf-vit")
    batch = batch_of(adapter, batch=2)

    def cycle() -> None:
        with mdpd.distill(adapter, steps=1, reduction=4, bottleneck=8) as student:
            student.backward(batch["inputs"], batch["labels"])

    for _ in range(3):
        cycle()
    before = held(adapter.model)
    for _ in range(100):
        cycle()
    assert held(adapter.model) == before
