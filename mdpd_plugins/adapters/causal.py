"""Causal language models: adapters whose outputs say at every token what the next one is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.registry.errors import CapabilityError

# Rounding of a mixture of experts, whose tokens are worked off in other groups, stays below some 1e-6 of the outputs.
TOLERANCE = 1e-5


@runtime_checkable
class CausalLanguageModel(Protocol):
    """What an adapter has besides if its outputs are (B, T, V): at each token, logits of the next one."""

    def output_layer(self) -> nn.Module:
        """The layer behind the final norm: `weight` (V, D) and maybe `bias` (V,)."""


@torch.no_grad()
def check_causal(adapter: Adapter) -> None:
    """Prove on an example that no output depends on a later token, and that every layer has one state a token.

    Raises:
        CapabilityError: one does, or a layer has another number of states.
    """
    inputs = adapter.example_inputs(1)
    ids = inputs["input_ids"]
    changed = ids.clone()
    changed[:, -1] = torch.where(ids[:, -1] == 5, 6, 5)
    with adapter.capture() as seen:
        before = adapter.forward(inputs)[:, :-1]
    after = adapter.forward({**inputs, "input_ids": changed})[:, :-1]
    tolerance = max(TOLERANCE, 2 * torch.finfo(before.dtype).eps)
    if bool(((before - after).abs() > tolerance * before.abs().max()).any()):
        raise CapabilityError(
            f"{adapter.name} reads the tokens that come after, so it is no causal language model: choose a decoder "
            f"such as GPT-2 or Llama, or set backbone.options.is_decoder=True where its configuration has that"
        )
    for layer, hidden in seen.hidden.items():
        if hidden.shape[1] != ids.shape[1]:
            raise CapabilityError(
                f"block {layer} of {adapter.name} has {hidden.shape[1]} states for {ids.shape[1]} tokens, and language "
                f"modelling needs one for each: choose another backbone"
            )


__all__ = ["CausalLanguageModel", "check_causal"]
