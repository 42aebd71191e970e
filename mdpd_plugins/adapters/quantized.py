"""Frozen linear layers of one byte or half a byte a weight, quantised by bitsandbytes (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mdpd_plugins.registry.errors import CapabilityError, ConfigError, MissingDependencyError, closest

# Whoever imports bitsandbytes (peft does) is warned of a kernel that some CPUs could have and nothing here calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

NONE = "none"
QUANTIZATIONS = (NONE, "int8", "nf4")
BLOCK = 64
"""Weights that share a scale at 4 bits: QLoRA's own, and bitsandbytes' default."""
STORED = ("packed", "scale", "scale_scale", "scale_offset")
CODES = ("code", "scale_code")
"""What the 16 values of 4 bits, and the 256 of a quantised scale, stand for: constants, in no checkpoint of ours."""


class QuantizedLinear(nn.Linear):
    """A frozen linear layer whose weight is kept quantised, and is made anew for each forward and each backward.

    Nothing of it is saved for a backward but the quantised weight. So recomputation, and what a step holds, are as with
    a plain frozen layer. It is not bitsandbytes' own layer, because that one keeps its input for a backward, rounds
    activations to 8 bits as well (int8), and packs its weights anew for inference on some CPUs, which a later backward
    cannot read. The numbers are those of bitsandbytes' functions.

    Args:
        in_features, out_features, bias: as `nn.Linear` has them. dtype: of its inputs, outputs and bias.
        kind: "int8" (a scale for each output), "nf4" or another of bitsandbytes' 4-bit types.
        parts: name -> tensor (`STORED`, `CODES`), as `quantize` returns them.
        block: weights that share a scale at 4 bits.

    Attributes:
        weight: (out_features, in_features), worked out whenever it is read, in the layer's type.
        packed: the quantised weight, uint8 or int8. scale: of each output or block.
    """

    packed: torch.Tensor
    scale: torch.Tensor
    scale_scale: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: nn.Parameter | None,
        dtype: torch.dtype,
        *,
        kind: str,
        parts: Mapping[str, torch.Tensor],
        block: int = BLOCK,
    ):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        self.kind, self.block = kind, block
        self.register_parameter("bias", bias)
        self.packed = nn.Parameter(parts["packed"], requires_grad=False)
        for name in STORED[1:]:
            self.register_buffer(name, parts.get(name))
        for name in CODES:
            self.register_buffer(name, parts.get(name), persistent=False)

    @classmethod
    def of(cls, linear: nn.Linear, kind: str, *, block: int = BLOCK, nested: bool = True) -> QuantizedLinear:
        """A linear layer, quantised."""
        weight = linear.weight.detach()
        parts = quantize(weight, kind, block=block, nested=nested)
        sizes = linear.in_features, linear.out_features
        made = cls(*sizes, linear.bias, weight.dtype, kind=kind, parts=parts, block=block)
        made.training = linear.training
        return made

    def like(self, linear: nn.Linear) -> QuantizedLinear:
        """A linear layer, quantised as this one is."""
        return QuantizedLinear.of(linear, self.kind, block=self.block, nested=self.scale_scale is not None)

    @property
    def kept(self) -> tuple[torch.Tensor | None, ...]:
        """What the weight is made from, in the order of `STORED` and `CODES`; None for what this kind has not."""
        return tuple(getattr(self, name) for name in (*STORED, *CODES))

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return _dequantized(self, self.kept)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # What is kept is given one by one, so that autograd sees what it saves.
        return _Linear.apply(input, self.bias, self, *self.kept)

    def is_of(self, linear: nn.Linear) -> bool:
        """Whether this is what quantising `linear` makes."""
        if linear.weight.shape != (self.out_features, self.in_features):
            return False
        weight = linear.weight.detach().to(self.packed.device, self.dtype)
        parts = quantize(weight, self.kind, block=self.block, nested=self.scale_scale is not None)
        return all(torch.equal(parts[name], getattr(self, name)) for name in STORED if name in parts)

    def plain(self) -> nn.Linear:
        """An ordinary layer with the weights that this one works with."""
        weight = self.weight
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        made.weight = nn.Parameter(weight)
        made.bias = self.bias
        made.training = self.training
        return made

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kind={self.kind}"


class _Linear(torch.autograd.Function):
    """x W^T + b, with W made from what is kept; its gradient for x alone, and for b where that is asked for."""

    @staticmethod
    def forward(ctx, x, bias, layer, *kept):
        ctx.layer, ctx.type = layer, x.dtype
        ctx.save_for_backward(*kept)
        return F.linear(x, _dequantized(layer, kept), bias)

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,) = gradients
        kept = ctx.saved_tensors  # a recomputed block hands them out once
        left = right = None
        if ctx.needs_input_grad[0]:
            left = (gradient @ _dequantized(ctx.layer, kept).to(gradient.dtype)).to(ctx.type)
        if ctx.needs_input_grad[1]:
            right = gradient.flatten(0, -2).sum(0).to(ctx.layer.bias.dtype)
        return left, right, None, *(None for _ in kept)


def quantize(weight: torch.Tensor, kind: str, *, block: int = BLOCK, nested: bool = True) -> dict[str, torch.Tensor]:
    """The parts of a quantised weight (out, in), by name (`STORED`, `CODES`).

    int8: rounded to 127 steps of each output's largest value. nf4: the 4 bits whose 16 values are spread like a normal
    distribution's, with a scale for every `block` weights that is quantised to 8 bits in turn where `nested`.
    """
    functional = _functional()
    if kind == "int8":
        packed, scale, _ = functional.int8_vectorwise_quant(weight.contiguous().to(torch.float16))
        return {"packed": packed, "scale": scale}
    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=block, compress_statistics=nested, quant_type=kind
    )
    return {"packed": packed, **state_parts(state)}


def state_parts(state: Any) -> dict[str, torch.Tensor]:
    """What bitsandbytes' own description of a weight of 4 bits holds, by our names."""
    nested = state.state2 if state.nested else None
    found = {"scale": state.absmax, "code": state.code}
    if nested is None:
        return found
    return {**found, "scale_scale": nested.absmax, "scale_offset": state.offset, "scale_code": nested.code}


def _dequantized(layer: QuantizedLinear, kept: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    packed, scale = kept[:2]
    assert packed is not None and scale is not None
    with torch.no_grad():
        if layer.kind == "int8":
            return packed.to(layer.dtype) * (scale / 127).to(layer.dtype)[:, None]
        return _functional().dequantize_4bit(packed, quant_state(layer, kept))


def quant_state(layer: QuantizedLinear, kept: tuple[torch.Tensor | None, ...]) -> Any:
    """bitsandbytes' own description of a weight of 4 bits."""
    state = _functional().QuantState
    _, scale, scale_scale, offset, code, scale_code = kept
    nested = None
    if scale_scale is not None:
        nested = state(absmax=scale_scale, code=scale_code, blocksize=256, dtype=torch.float32)
    return state(
        absmax=scale,
        shape=torch.Size((layer.out_features, layer.in_features)),
        dtype=layer.dtype,
        code=code,
        blocksize=layer.block,
        quant_type=layer.kind,
        offset=offset,
        state2=nested,
    )


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


@cache
def _functional() -> Any:
    """bitsandbytes' functions; imported where one is needed, because it takes seconds."""
    return importlib.import_module("bitsandbytes.functional")


def quantize_blocks(model: nn.Module, blocks: Mapping[str, nn.Module], kind: str, *, name: str) -> int:
    """Quantise the linear layers of a model's blocks, in place, one after the other; how many they were.

    Left as they are: layers that compute in a way of their own, those inside `nn.MultiheadAttention` (which reads their
    weights instead of calling them), and those that share their weight with another layer.

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
    seen: dict[int, QuantizedLinear] = {}
    for block in blocks.values():
        for parent in [m for m in block.modules() if not isinstance(m, nn.MultiheadAttention)]:
            for attribute, child in list(parent.named_children()):
                if not isinstance(child, nn.Linear) or type(child).forward is not nn.Linear.forward:
                    continue
                if id(child) not in seen:
                    if owners[id(child.weight)] > 1 or child._forward_hooks or child._forward_pre_hooks:
                        continue
                    seen[id(child)] = QuantizedLinear.of(child, kind)
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
        keys.add(f"{name}.weight")
    return keys


def put_in(model: nn.Module, layers: Mapping[Any, nn.Module]) -> None:
    """Put modules of a model where others were: old -> new."""
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if child in layers:
                setattr(parent, attribute, layers[child])


__all__ = [
    "NONE",
    "QUANTIZATIONS",
    "QuantizedLinear",
    "check_quantization",
    "plain_keys",
    "put_in",
    "quant_state",
    "quantize",
    "quantize_blocks",
    "quantized_layers",
    "state_parts",
]
