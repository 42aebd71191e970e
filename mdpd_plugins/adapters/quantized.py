"""Frozen linear layers of one byte or half a byte a weight: which are held so, and what stands in their place."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from mdpd_plugins.adapters.quantized_attention import IN, QuantizedAttention, can_be_quantized, in_projection
from mdpd_plugins.adapters.quantized_linear import STORED, QuantizedLinear, quantized, transposed
from mdpd_plugins.registry.errors import CapabilityError, ConfigError, MissingDependencyError, closest

NONE = "none"
QUANTIZATIONS = (NONE, "int8", "nf4")


def check_quantization(kind: str) -> None:
    """Raise unless weights can be quantised so here.

    Raises:
        ConfigError: another word. MissingDependencyError: bitsandbytes is not installed.
    """
    if kind not in QUANTIZATIONS:
        raise ConfigError(f"backbone.quantization={kind!r} does not exist: {closest(str(kind), QUANTIZATIONS)}")
    if kind != NONE and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            "quantised weights (backbone.quantization) need bitsandbytes: pip install 'mdpd-plugins[quantization]'"
        )


def quantize_blocks(model: nn.Module, blocks: Mapping[str, nn.Module], kind: str, *, name: str) -> int:
    """Quantise the linear layers of a model's blocks, in place, one after the other; how many they were.

    Those are `nn.Linear`, transformers' `Conv1D`, and both projections of `nn.MultiheadAttention`. Left as they are:
    layers that compute in a way of their own, that carry hooks, or that share their weight with another layer.

    Args:
        blocks: name in the model -> block. name: of the backbone, for messages.

    Raises:
        CapabilityError: the blocks hold no such layer. ConfigError: they are quantised already.
    """
    if (held := next(quantized_layers(model), None)) is not None:
        raise ConfigError(
            f"the checkpoint of {name} is quantised already ({held[1].kind}): leave out backbone.quantization, or give "
            f"another checkpoint"
        )
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    seen: dict[int, nn.Module] = {}

    def small(module: Any) -> nn.Module | None:
        own = [p for m in module.modules() for n, p in m.named_parameters(recurse=False) if n.endswith("weight")]
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        if hooked or any(owners[id(p)] > 1 for p in own):
            return None
        return QuantizedAttention.of(module, kind) if can_be_quantized(module) else quantized(module, kind)

    for block in blocks.values():
        # An attention's own children are replaced with it, or not at all: it reads their weights and never calls them.
        for parent in [m for m in block.modules() if not isinstance(m, nn.MultiheadAttention)]:
            for attribute, child in list(parent.named_children()):
                if id(child) not in seen:
                    if not (can_be_quantized(child) or transposed(child) or isinstance(child, nn.Linear)):
                        continue
                    if (made := small(child)) is None:
                        continue
                    seen[id(child)] = made
                setattr(parent, attribute, seen[id(child)])
    if not seen:
        raise CapabilityError(
            f"{name} has no linear layers in its blocks that could be quantised (convolutions and other layers are "
            f"not): set backbone.quantization='none'; backbone.dtype='bfloat16' halves its weights"
        )
    return len(seen)


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantizedLinear]]:
    """(name, layer) of those that are quantised."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, QuantizedLinear))


def plain_keys(model: nn.Module) -> set[str]:
    """Keys of a model's state dict as they would be without quantisation."""
    keys = set(model.state_dict())
    for name, _ in quantized_layers(model):
        keys -= {f"{name}.{part}" for part in STORED}
        owner, _, last = name.rpartition(".")
        held = last == IN and isinstance(model.get_submodule(owner), QuantizedAttention)
        keys.add(f"{name}_weight" if held else f"{name}.weight")
    return keys


def linear_at(model: nn.Module, name: str) -> nn.Module | None:
    """The linear layer that a name of `quantized_layers` means in the plain model; None where there is none."""
    owner, _, last = name.rpartition(".")
    try:
        parent = model.get_submodule(owner)
        if last == IN and can_be_quantized(parent):
            return in_projection(parent)  # type: ignore[arg-type]
        found = parent.get_submodule(last)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear) or transposed(found) else None


def put_in(model: nn.Module, layers: Mapping[Any, nn.Module]) -> None:
    """Put modules of a model where others were: old -> new. An attention that holds nothing quantised becomes plain."""
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if child in layers:
                setattr(parent, attribute, layers[child])
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if isinstance(child, QuantizedAttention) and not isinstance(child.in_proj, QuantizedLinear):
                setattr(parent, attribute, child.plain())


__all__ = [
    "NONE",
    "QUANTIZATIONS",
    "check_quantization",
    "linear_at",
    "plain_keys",
    "put_in",
    "quantize_blocks",
    "quantized_layers",
]
