"""What tests of adapters ask of a model: everything that could have changed in it, and its gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def trace_of(model: nn.Module) -> dict:
    """Everything that could have been changed: attributes, hooks, buffers by identity, implementations."""
    found = {}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            content = tuple((k, id(v)) for k, v in value.items()) if isinstance(value, dict) else None
            found[name, attribute] = (id(value), content)
        config = getattr(module, "config", None)
        if config is not None:
            found[name, "implementation"] = getattr(config, "_attn_implementation", None)
    return found


def gradients(adapter, inputs, labels, *, recompute: bool) -> dict[str, torch.Tensor]:
    trained = {**adapter.norm_parameters(), **adapter.head_parameters()}
    for name, p in adapter.model.named_parameters():
        p.requires_grad_(name in trained)
    context = adapter.recompute() if recompute else torch.enable_grad()
    with context, adapter.capture():
        loss = F.cross_entropy(adapter.forward(inputs), labels)
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
