"""PyTorch's own attention with quantised projections, which its code reads and never calls as layers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

from mdpd_plugins.adapters.quantized_linear import QuantizedLinear, share

IN = "in_proj"
"""What a quantised attention calls the projection of its inputs, which in the plain one is no layer but a weight."""

Updates = Callable[[], tuple[torch.Tensor, torch.Tensor]]


class QuantizedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose projections are kept quantised, and whose weights are made anew for each forward.

    It lends the weights to a plain attention for one call, and has that call made again in a backward, as
    recomputation of a block does (`torch.utils.checkpoint`). So nothing of them is held in between, and outputs and
    gradients are the plain attention's. PyTorch's code reads weights as it goes, so there is no narrower place to make
    them in. The call costs one more attention where gradients pass (our choice: a second implementation of PyTorch's
    attention would have to follow its every version).

    Attributes:
        in_proj: what projects queries, keys and values. out_proj: what projects the output.
        in_proj_weight: (3 x embed_dim, embed_dim), worked out whenever it is read.
    """

    in_proj: QuantizedLinear
    out_proj: Any
    made_of: type[nn.MultiheadAttention]

    @classmethod
    def of(cls, attention: nn.MultiheadAttention, kind: str) -> QuantizedAttention:
        """An attention, quantised; see `can_be_quantized`."""
        made = cls.__new__(cls)
        share(attention, made)
        made.made_of = type(attention)
        made._parameters["in_proj_weight"] = None
        out = QuantizedLinear.of(attention.out_proj, kind)
        made._modules = {IN: QuantizedLinear.of(in_projection(attention), kind), "out_proj": out}
        return made

    @property
    def in_proj_weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.in_proj.weight

    def forward(  # type: ignore[override]
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *args: Any,
        updates: Updates | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `nn.MultiheadAttention`, with what `updates` returns added to the weights of both projections."""
        # PyTorch takes another way where queries, keys and values are one tensor, so they must stay one.
        inputs = query, key, value
        given = list({id(x): x for x in inputs}.values())
        places = [next(i for i, x in enumerate(given) if x is one) for one in inputs]

        def call(*tensors: torch.Tensor) -> Any:
            # Not called as a module: hooks are those of this one, and have run.
            query, key, value = (tensors[i] for i in places)
            return self.made_of.forward(self._lent(updates), query, key, value, *args, **kwargs)

        if not torch.is_grad_enabled():
            return call(*given)
        return checkpointing.checkpoint(call, *given, use_reentrant=False, preserve_rng_state=False)

    def _lent(self, updates: Updates | None) -> Any:
        more, more_out = (None, None) if updates is None else updates()
        weights = (added(self.in_proj.weight, more), added(self.out_proj.weight, more_out))
        return with_weights(self, *weights, self.made_of)

    def plain(self) -> nn.MultiheadAttention:
        """An ordinary attention with the weights that this one works with."""
        made = self.made_of.__new__(self.made_of)
        share(self, made)
        del made._modules[IN]
        made._parameters["in_proj_weight"] = nn.Parameter(self.in_proj.weight)
        return made


def with_weights(
    attention: nn.MultiheadAttention, weight: torch.Tensor, out: torch.Tensor, kind: type[nn.MultiheadAttention]
) -> Any:
    """A module for one call, which computes what an attention does with other weights of its projections.

    Args:
        weight: of the inputs, (3 x embed_dim, embed_dim). out: of the output, (embed_dim, embed_dim). kind: its class.
    """
    made = kind.__new__(kind)
    share(attention, made)
    made._parameters["in_proj_weight"] = weight  # type: ignore[assignment]
    made._modules["out_proj"] = SimpleNamespace(weight=out, bias=attention.out_proj.bias)  # type: ignore[assignment]
    return made


def added(weight: torch.Tensor, update: torch.Tensor | None) -> torch.Tensor:
    """A weight with an update, in the weight's type."""
    return weight if update is None else weight + update.to(weight.dtype)


def can_be_quantized(module: nn.Module) -> bool:
    """Whether it is PyTorch's attention, as PyTorch computes it, with one weight for queries, keys and values."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and module.in_proj_weight is not None
    )


def in_projection(attention: nn.MultiheadAttention) -> nn.Linear:
    """A layer with the very weight that projects an attention's inputs; its bias stays the attention's."""
    weight = attention.in_proj_weight
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
    made.training = attention.training
    return made


__all__ = ["IN", "QuantizedAttention", "added", "can_be_quantized", "in_projection", "with_weights"]
