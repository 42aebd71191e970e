"""What training will hold, before any of it is held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mmengine.config import Config
from rich.table import Table

from mdpd_plugins.console import console
from mdpd_plugins.engine.fake_tensors import Imagination, imagined
from mdpd_plugins.training.coach import first_stage
from mdpd_plugins.training.config import any_method, settings_of
from mdpd_plugins.training.experiment import Experiment, Parts, build_experiment, first_batch, open_parts
from mdpd_plugins.training.step_memory import (
    PlanError,
    StepMemory,
    features_held,
    measure_evaluation,
    measure_step,
    plannable,
    run_bytes,
    weight_bytes,
    weights_by_type,
)

PACKED = ("int8", "uint8")
"""Types of quantised weights: a byte each, or two weights in a byte with their scales."""


@dataclass(frozen=True)
class Plan:
    """What a run of a configuration holds.

    Attributes:
        weights: bytes of the backbone's parameters and buffers, which are there also without training.
        step: bytes above them in a training step.
        evaluation: bytes that an evaluation step holds, above what stays from step to step.
        features: bytes of hidden states that are kept in main memory.
        trained, side: numbers of parameters that train, in the backbone and in the side network.
        batch: samples of the step.
        types: bytes of the weights by their type, such as {"bfloat16": ...}.
        first: of the stage in which a coach learns, where there is one; of several coaches, of the one that holds most.
    """

    weights: int
    step: StepMemory
    evaluation: int
    features: int
    trained: int
    side: int
    batch: int
    types: Mapping[str, int] = field(default_factory=dict)
    first: Plan | None = None

    @property
    def peak(self) -> int:
        """Bytes of weights and training step together."""
        return self.weights + self.step.total

    @property
    def run(self) -> int:
        """Bytes at most in the whole run, above the imported libraries: of a training or an evaluation step, with
        weights and features, in the stage that holds more."""
        own = run_bytes(self.weights, self.step, self.evaluation, self.features)
        return own if self.first is None else max(own, self.first.run)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "weights_bytes": self.weights,
            "weights_by_type": dict(self.types),
            "training_state_bytes": self.step.total,
            "peak_bytes": self.peak,
            "evaluation_bytes": self.evaluation,
            "features_bytes": self.features,
            "run_bytes": self.run,
            "memory": self.step.as_dict(),
            "trainable_parameters": self.trained + self.side,
            "batch_size": self.batch,
        }


def plan(config: Config) -> Plan:
    """Bytes that training of `config` will hold on a CPU.

    The very experiment is built and the very step runs that `--dry-run` measures, on tensors that have sizes and no
    numbers (see `imagined`), so there is no second formula to fall behind. A model of any size can be planned.

    Raises:
        PlanError: the model computes sizes from numbers, in a way a plan cannot follow.
        MDPDError: the configuration cannot be used.
    """
    config = any_method(config)
    found = _plan(config, lambda parts: build_experiment(config, parts=parts))
    coaches = range(len(settings_of(config).coaches))
    stages = [_plan(config, partial(first_stage, config, number=number)) for number in coaches]
    return replace(found, first=max(stages, key=lambda stage: stage.run, default=None))


def _plan(config: Config, build: Callable[[Parts], Experiment]) -> Plan:
    mode = Imagination()
    with plannable(config.backbone.name):
        with imagined(mode):
            experiment = build(open_parts(config, adopt=mode.adopt))
        batch, evaluated = first_batch(experiment.train_loader), first_batch(experiment.eval_loader)
        with imagined(mode):
            step = measure_step(experiment, batch)
            evaluation = measure_evaluation(experiment, evaluated)
    distiller = experiment.distiller
    return Plan(
        weights=weight_bytes(experiment),
        step=step,
        evaluation=evaluation,
        features=features_held(experiment),
        trained=sum(p.numel() for p in distiller.trainable.values()),
        side=sum(p.numel() for p in distiller.side_parameters()),
        batch=len(batch["labels"]),
        types=weights_by_type(experiment),
    )


def print_plans(plans: Mapping[str, Plan]) -> None:
    """A table of plans, one row for each name, in MiB; weights also by type, where some are not float32."""
    # Without lines it fits into 80 columns: a method's name cut short looks like another's.
    table = Table(box=None, header_style="bold", pad_edge=False)
    held = {name for found in plans.values() for name in found.types}
    types = sorted({name for name in held if "float" in name or name in PACKED} - {"float32"})
    types += ["float32"] if types else []
    sums = ("training state", "side", "optimiser", "transient peak", "in all", "run")
    columns = ("method", "weights", *types, *sums, "trains")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=column == "method")
    for name, found in plans.items():
        step = found.step
        by_type = (found.types.get(name, 0) for name in types)
        state = (step.total, step.side_parameters + step.masters, step.optimiser, step.transient)
        sizes = (found.weights, *by_type, *state, found.peak, found.run)
        table.add_row(name, *(f"{size / 2**20:,.1f}" for size in sizes), f"{found.trained + found.side:,}")
    out = console()
    out.print(table)
    batch = next(iter(plans.values())).batch
    out.print(f"MiB at {batch} samples a step. Training state is what a step holds above the backbone's weights:")
    out.print("the side network, the optimisers' state, and the peak of all that the step creates and drops.")
    out.print("Run is the most of a whole run: evaluations, kept features and a coach's own stage count, too.")
    if any(found.step.masters for found in plans.values()):
        out.print("Side counts float32 masters of what trains in a narrower type, too.")


__all__ = ["Plan", "PlanError", "plan", "print_plans"]
