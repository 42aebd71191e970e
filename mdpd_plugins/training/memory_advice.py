"""Out of memory in a training: what a step was planned to hold, and which settings lower it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mmengine.config import Config

from mdpd_plugins.engine.settings import evaluation_size
from mdpd_plugins.registry.errors import OutOfMemory
from mdpd_plugins.shortages import out_of_memory


@contextmanager
def advised(config: Config, memory: Mapping[str, int]) -> Iterator[None]:
    """Inside, running out of memory ends with what to lower.

    Args:
        memory: bytes that a step holds, as `StepMemory.as_dict`; empty where it was not planned.

    Raises:
        OutOfMemory: instead of PyTorch's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not out_of_memory(error):
            raise
        raise OutOfMemory(f"there is not enough memory. {_planned(memory)}{_advice(config)}") from error


def _planned(memory: Mapping[str, int]) -> str:
    if "total" not in memory:
        return ""
    mib = {key: f"{value / 2**20:.1f} MiB" for key, value in memory.items()}
    return (
        f"A step was planned to hold {mib['total']} above the frozen weights, {mib['transient']} of it for the batch. "
    )


def _advice(config: Config) -> str:
    batch, part = config.data.batch_size, config.distill.get("sub_batch")
    now = part or batch
    lower = [f"distill.sub_batch={max(1, now // 2)}, which changes no result"] if now > 1 else []
    lower += [f"data.batch_size (now {batch})", f"data.eval_batch_size (now {evaluation_size(config)})"]
    return f"Lower what it needs: {', '.join(lower)}. `mdpd bench CONFIG --plan` compares methods before training"


__all__ = ["advised"]
