"""What building a backbone hands over: the model, and what only its building knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

RANDOM = "random initialisation"


@dataclass(frozen=True)
class Built:
    """A model, with what its adapter cannot see in it. A `build` without any of this returns the bare model.

    Attributes:
        model: the zoo's own module.
        origin: one phrase for log, summary and card: where its weights came from. It begins with `RANDOM` for a model
            that was not pretrained; "" where it is not known.
        source: folder or hub id of the files that came with the weights, such as a tokenizer; "" for none.
        settings: what the zoo's adapter needs to write the model's files again, such as MMPretrain's config.
        stored: the type of the checkpoint's weights, which the model comes in unless another was asked for; None for a
            model that was not pretrained, or where it is not known: then they are taken as they come.
        finish: called with the adapter as soon as there is one, for what needs it: reading weights into a model whose
            output layer may differ from the checkpoint's, or checking that they fitted. What it raises is what the user
            sees.
    """

    model: nn.Module
    origin: str = ""
    source: str = ""
    settings: Any = None
    stored: torch.dtype | None = None
    finish: Callable[[Any], None] | None = None


def as_built(model: nn.Module | Built) -> Built:
    """A bare model as a `Built` of which nothing else is known."""
    return model if isinstance(model, Built) else Built(model)


__all__ = ["RANDOM", "Built", "as_built"]
