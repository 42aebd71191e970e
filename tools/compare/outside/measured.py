"""What both sides answer in the same way: what their process holds, and what their model says of validation data."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from tools.resident import resident


def held() -> dict[str, Any]:
    """Most bytes that this process had in main memory so far, and on a GPU by PyTorch's count; modules it imported."""
    found: dict[str, Any] = {"peak": resident("VmHWM"), "modules": sorted(sys.modules)}
    if torch.cuda.is_available():
        found["cuda_peak"] = torch.cuda.max_memory_allocated()
    return found


def write_outputs(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], file: str) -> dict[str, Any]:
    """Keep (outputs, labels) of the validation batches, joined, as "outputs" and "labels" of a file."""
    outputs, labels = zip(*batches, strict=True)
    torch.save({"outputs": torch.cat(outputs).float().cpu(), "labels": torch.cat(labels).cpu()}, Path(file))
    return {"samples": sum(len(part) for part in labels)}


def stored_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors, each one once."""
    return sum({id(t): t.nbytes for t in tensors}.values())


def tensors_within(value: Any) -> Iterator[torch.Tensor]:
    """Tensors among the attributes of an object, and of the objects there (bitsandbytes' quantisation state)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value).__module__.startswith("bitsandbytes."):
        for part in vars(value).values():
            yield from tensors_within(part)


__all__ = ["held", "stored_bytes", "tensors_within", "write_outputs"]
