"""How learning rates change over a run: mmengine's schedulers, as `optim.schedule` and `optim.warmup` choose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.optim import OptimWrapper

SCHEDULES = ("cosine", "linear", "constant")
# What a scheduler's state holds of how far it has got; all else is how it was configured.
_PROGRESS = ("last_step", "_global_step", "_last_value", "_get_lr_called_within_step", "base_values")


def schedulers(schedule: str, warmup: float, steps: int) -> list[dict[str, Any]]:
    """mmengine configurations of one path's schedulers.

    A linear rise over the first `warmup` share of the steps, then the schedule over the rest of them: half a cosine
    down to zero (SGDR, arXiv:1608.03983, eq. 5, without restarts), a straight line down to zero, or none.

    Args:
        schedule: one of `SCHEDULES`. warmup: share of all steps. steps: of the run.
    """
    first = round(warmup * steps)
    first = min(first, steps - 1) if first > 1 else 0  # a rise of one step is none
    common = {"by_epoch": False, "begin": first, "end": steps}
    found: list[dict[str, Any]] = []
    if first:
        found.append({"type": "LinearLR", "start_factor": 1 / first, "by_epoch": False, "begin": 0, "end": first})
    if schedule == "cosine":
        found.append({"type": "CosineAnnealingLR", "T_max": steps - first, "eta_min": 0.0, **common})
    elif schedule == "linear":
        # The line meets zero behind the last step, as the cosine does.
        found.append({"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, **common, "end": steps + 1})
    else:
        found.append({"type": "ConstantLR", "factor": 1.0, **common})
    return found


def configured(found: Sequence[Any]) -> list[dict[str, Any]]:
    """What schedulers do, without how far they have got."""
    return [
        {"type": type(one).__name__, **{k: v for k, v in one.state_dict().items() if k not in _PROGRESS}}
        for one in found
    ]


def started_anew(
    wrapper: OptimWrapper, rates: Sequence[float], build: Callable[[], list[Any]], done: int, steps: int
) -> list[Any]:
    """Schedulers as they would be had the run been configured so from its first step on.

    mmengine takes rates and schedules from the checkpoint, so that a run which had stopped on a non-finite loss could
    not be resumed with a lower rate.

    Args:
        rates: the configured learning rate of each of `wrapper.param_groups`.
        build: makes the configured schedulers, which set the first step's rates.
        done, steps: that were taken, and that the run now has.
    """
    for group, rate in zip(wrapper.param_groups, rates, strict=True):
        group["initial_lr"] = group["lr"] = rate
    found = build()
    for _ in range(min(done, steps - 1)):
        for scheduler in found:
            scheduler.step()
    return found


__all__ = ["SCHEDULES", "configured", "schedulers", "started_anew"]
