"""The logits in whatever a model returns: a tensor, a mapping, a dataclass, a named tuple, or a tuple."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from mdpd_plugins.adapters.inspection.layout import first_tensor
from mdpd_plugins.registry.errors import CapabilityError

LOGITS = ("logits", "outputs", "output", "out", "scores", "predictions", "prediction", "preds", "pred")


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a model returned: a tensor, the one that is called so, the only one, or a tuple's first.

    Raises:
        CapabilityError: there is none, or several under names that do not say which.
    """
    if isinstance(output, torch.Tensor):
        return output
    named = _named(output)
    if named is None:
        return first_tensor(output)
    tensors = {k: v for k, v in named.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    for name in LOGITS:
        if name in tensors:
            return tensors[name]
    if sum(t.dim() == 2 for t in tensors.values()) > 1:
        raise CapabilityError(
            f"the model returns a {type(output).__name__} with {', '.join(map(repr, tensors))}, and none of them is "
            f"called 'logits': give a model whose forward returns the logits, or an adapter with a _call of its own"
        )
    return first_tensor(tensors)


def _named(output: Any) -> Mapping[str, Any] | None:
    """The parts of a model's output by name: of a mapping, a dataclass or a named tuple; None for any other."""
    if isinstance(output, Mapping):
        return output
    if is_dataclass(output) and not isinstance(output, type):
        return {f.name: getattr(output, f.name) for f in fields(output)}
    if hasattr(output, "_asdict"):
        return output._asdict()
    found = getattr(output, "logits", None)
    return None if found is None else {"logits": found}


__all__ = ["logits_of"]
