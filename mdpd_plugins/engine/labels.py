"""Labels as people hold them, to the tensors that losses take."""

from __future__ import annotations

from typing import Any

import torch

from mdpd_plugins.registry.errors import DataError

# PyTorch's losses take indices of int64 alone; data sets store them in as few bytes as they need.
_NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


def as_labels(given: Any, device: torch.device) -> torch.Tensor:
    """Labels on a device, integers as int64.

    Args:
        given: a tensor, an array of numpy, or a list of numbers, for a batch.

    Raises:
        DataError: no numbers.
    """
    try:
        labels = torch.as_tensor(given, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"labels are a tensor, an array or a list of numbers, and {type(given).__name__} was given "
            f"({str(error).splitlines()[0]}): class names have to be numbered, from 0 in the order of the outputs"
        ) from error
    return labels.long() if labels.dtype in _NARROW else labels


__all__ = ["as_labels"]
