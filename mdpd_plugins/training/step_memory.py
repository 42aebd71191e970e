"""What one step of training holds, in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mdpd_plugins.engine import TensorMeter
from mdpd_plugins.engine.fake_tensors import Imagination, imagined
from mdpd_plugins.engine.feature_store import RowsInMemory
from mdpd_plugins.registry.errors import MDPDError
from mdpd_plugins.training.experiment import Experiment, first_batch
from mdpd_plugins.training.optim import build_optim

BESIDES = 24 * 2**20
"""Bytes that a run holds besides its tensors: Python's objects, tokenizers and readers of data, stacks of threads. Our
choice, of what `tools.resident` finds (docs/scale.md)."""


class PlanError(MDPDError):
    """A model's code needs numbers that a plan does not have."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes above the frozen weights.

    Attributes:
        side_parameters: the side network's own weights.
        masters: float32 masters of what trains in a narrower type.
        optimiser: state of both optimisers.
        transient: peak of everything a step creates: saved tensors, recomputed blocks, gradients.
        total: their sum, the training state.
    """

    side_parameters: int
    optimiser: int
    transient: int
    masters: int = 0

    @property
    def total(self) -> int:
        """Training state in bytes."""
        return self.side_parameters + self.masters + self.optimiser + self.transient

    @property
    def between(self) -> int:
        """Bytes that stay from step to step: all but what a step creates and drops."""
        return self.total - self.transient

    def as_dict(self) -> dict[str, int]:
        """Plain data."""
        return {**asdict(self), "total": self.total}


def measure_step(experiment: Experiment, data: dict[str, Any]) -> StepMemory:
    """Run one training step in which both phases take their turn, and count what it holds.

    It changes optimiser state, though no weight: its learning rates are zero, because a rate that breaks the run
    must do so at a step of the run. Call it on an experiment that is not trained on.
    """
    for wrapper in experiment.optim.values():
        for group in wrapper.optimizer.param_groups:
            group["lr"] = 0.0
    distiller = experiment.distiller
    # The first steps create the optimisers' state, of which accumulation takes several: one sample does for that.
    # The last is measured.
    one = {"inputs": {k: v[:1] for k, v in data["inputs"].items()}, **{k: data[k][:1] for k in data if k != "inputs"}}
    number = distiller.phases.measured_step(experiment.max_steps)
    for _ in range(experiment.config.optim.accumulate):
        distiller.step.fill_(number)
        distiller.train_step(one, experiment.optim)
    state = [t for w in experiment.optim.values() for s in w.optimizer.state.values() for t in s.values()]
    # Each tensor once: bitsandbytes' optimiser has one table of 8-bit numbers for all of its states.
    before = list({id(t): t for t in state if isinstance(t, torch.Tensor)}.values())
    distiller.step.fill_(number)
    with TensorMeter([*distiller.parameters(), *distiller.buffers(), *before]) as meter:
        distiller.train_step(data, experiment.optim)
    return StepMemory(
        side_parameters=sum(p.nbytes for p in distiller.side_parameters()),
        optimiser=sum(t.nbytes for t in before),
        transient=meter.peak,
        masters=sum(p.nbytes for p in distiller.masters.parameters()),
    )


def measure_evaluation(experiment: Experiment, data: dict[str, Any]) -> int:
    """Bytes that an evaluation step holds at most, above weights, side network, masters and optimisers' state.

    Args:
        data: a batch of the evaluation data.
    """
    distiller = experiment.distiller
    with TensorMeter([*distiller.parameters(), *distiller.buffers()]) as meter:
        distiller.val_step({k: data[k] for k in ("inputs", "labels")})
    return meter.peak


def features_held(experiment: Experiment) -> int:
    """Bytes of main memory that the features of all examples will take, where they are kept, but for those that
    `measure_step` has left there. To be asked after it."""
    cache = experiment.distiller.cache
    if cache is None or not isinstance(cache.rows, RowsInMemory):
        return 0
    count = experiment.train_loader.dataset.count + experiment.val_loader.dataset.count  # type: ignore[attr-defined]
    return cache.rows.expected(count) - cache.rows.held


def run_bytes(weights: int, step: StepMemory, evaluation: int, features: int) -> int:
    """Bytes that a stage of a run holds at most, above the imported libraries, in a training or an evaluation step."""
    return BESIDES + weights + features + max(step.total, step.between + evaluation)


def planned_step(experiment: Experiment) -> StepMemory:
    """What `measure_step` would count, without running a step: on a copy whose weights have sizes and no numbers.

    Nothing of the experiment changes, and no weight is copied.

    Raises:
        PlanError: the model's code works with numbers where a plan has sizes only, or it cannot be copied.
    """
    mode = Imagination()
    with plannable(experiment.adapter.name):
        batch = first_batch(experiment.train_loader)
        distiller = mode.copied(experiment.distiller, [experiment.distiller])
        with imagined(mode):
            optim = build_optim(distiller, experiment.config)
            return measure_step(replace(experiment, distiller=distiller, optim=optim), batch)


def step_bytes(experiment: Experiment) -> dict[str, int]:
    """Bytes that a step holds (`StepMemory`), planned beforehand; none where the model's code cannot be planned."""
    try:
        return planned_step(experiment).as_dict()
    except PlanError:
        return {}


@contextmanager
def plannable(name: str) -> Iterator[None]:
    """Inside, what a model raises because it meets sizes without numbers becomes a PlanError."""
    try:
        yield
    except MDPDError:
        raise
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        raise PlanError(
            f"{name} cannot be planned: its code works with numbers where a plan has sizes only "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Measure it: train.py CONFIG --dry-run"
        ) from error


def weight_bytes(experiment: Experiment) -> int:
    """Bytes of the backbone's parameters and buffers, each tensor once."""
    model = experiment.adapter.model
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])


def weights_by_type(experiment: Experiment) -> dict[str, int]:
    """Type -> bytes of the backbone's parameters and buffers of that type, each tensor once; the largest first."""
    model, found = experiment.adapter.model, dict[str, int]()
    for tensor in [*model.parameters(), *model.buffers()]:
        name = str(tensor.dtype).removeprefix("torch.")
        found[name] = found.get(name, 0) + tensor.nbytes
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


__all__ = [
    "BESIDES",
    "PlanError",
    "StepMemory",
    "features_held",
    "measure_evaluation",
    "measure_step",
    "plannable",
    "planned_step",
    "run_bytes",
    "step_bytes",
    "weight_bytes",
    "weights_by_type",
]
