"""Frozen linear layers of one byte or half a byte a weight, quantised by bitsandbytes (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Whoever imports bitsandbytes (peft does) is warned of a kernel that some CPUs could have and nothing here calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

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
        form: the plain layer without its weight, of whatever class it was.
    """

    form: Any
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
        # No part of this one: its tensors would be this one's, too.
        self.__dict__["form"] = nn.Linear(in_features, out_features, bias=False, device="meta")
        self.register_parameter("bias", bias)
        self.packed = nn.Parameter(parts["packed"], requires_grad=False)
        for name in STORED[1:]:
            self.register_buffer(name, parts.get(name))
        for name in CODES:
            self.register_buffer(name, parts.get(name), persistent=False)

    @classmethod
    def of(cls, linear: Any, kind: str, *, block: int = BLOCK, nested: bool = True) -> QuantizedLinear:
        """A linear layer that `quantized` takes, quantised."""
        weight = across(linear)
        parts = quantize(weight, kind, block=block, nested=nested)
        sizes = weight.shape[1], weight.shape[0]
        made = cls(*sizes, linear.bias, weight.dtype, kind=kind, parts=parts, block=block)
        made.training = linear.training
        made.__dict__["form"] = _shared(linear)
        made.__dict__["form"]._parameters["weight"] = None
        return made

    def like(self, linear: nn.Module) -> QuantizedLinear:
        """A linear layer, quantised as this one is."""
        return type(self).of(linear, self.kind, block=self.block, nested=self.scale_scale is not None)

    @property
    def kept(self) -> tuple[torch.Tensor | None, ...]:
        """What the weight is made from, in the order of `STORED` and `CODES`; None for what this kind has not."""
        return tuple(getattr(self, name) for name in (*STORED, *CODES))

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.made(self.kept)

    def made(self, kept: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
        """The weight, as the plain layer has it, from what `kept` returns."""
        return _dequantized(self, kept)

    @staticmethod
    def applied(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """What the plain layer computes."""
        return F.linear(x, weight, bias)

    @staticmethod
    def left(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The gradient of `applied` for x, as plain autograd has it."""
        return gradient @ weight

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # What is kept is given one by one, so that autograd sees what it saves.
        return _Linear.apply(input, self.bias, self, *self.kept)

    def is_of(self, linear: nn.Module) -> bool:
        """Whether this is what quantising `linear` makes."""
        if (weight := across(linear)).shape != (self.out_features, self.in_features):
            return False
        weight = weight.to(self.packed.device, self.dtype)
        parts = quantize(weight, self.kind, block=self.block, nested=self.scale_scale is not None)
        return all(torch.equal(parts[name], getattr(self, name)) for name in STORED if name in parts)

    def plain(self) -> nn.Module:
        """An ordinary layer with the weights that this one works with."""
        made = _shared(self.form)
        made.weight, made.bias = nn.Parameter(self.weight), self.bias
        made.training = self.training
        return made

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kind={self.kind}"


class QuantizedTransposed(QuantizedLinear):
    """As `QuantizedLinear`, for transformers' `Conv1D`: a linear layer (GPT-2's) whose weight lies (inputs, outputs).

    What is quantised is the weight turned round, as transformers itself does it.

    Attributes:
        weight: (in_features, out_features), worked out whenever it is read.
    """

    def made(self, kept: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
        return super().made(kept).t().contiguous()  # products of a matrix that lies otherwise round otherwise

    @staticmethod
    def applied(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        assert bias is not None
        return torch.addmm(bias, x.view(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)

    @staticmethod
    def left(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return gradient.flatten(0, -2).mm(weight.t()).view(*gradient.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """x W^T + b, with W made from what is kept; its gradient for x alone, and for b where that is asked for."""

    @staticmethod
    def forward(ctx, x, bias, layer, *kept):
        ctx.layer, ctx.type = layer, x.dtype
        ctx.save_for_backward(*kept)
        return layer.applied(x, layer.made(kept), bias)

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,) = gradients
        kept = ctx.saved_tensors  # a recomputed block hands them out once
        left = right = None
        if ctx.needs_input_grad[0]:
            left = ctx.layer.left(gradient, ctx.layer.made(kept).to(gradient.dtype)).to(ctx.type)
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


def transposed(module: nn.Module) -> bool:
    """Whether it is transformers' `Conv1D`: a linear layer (GPT-2's) whose weight lies (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def across(linear: Any) -> torch.Tensor:
    """The weight (outputs, inputs) of a linear layer, contiguous, without a gradient."""
    weight = linear.weight.detach()
    return (weight.t() if transposed(linear) else weight).contiguous()


def quantized(module: nn.Module, kind: str) -> QuantizedLinear | None:
    """A linear layer, quantised; None for a module of another kind, or one that computes in a way of its own."""
    if transposed(module):
        return QuantizedTransposed.of(module, kind)
    return QuantizedLinear.of(module, kind) if _as_torch_does(module) else None


def _as_torch_does(module: nn.Module) -> bool:
    """Whether it computes what `nn.Linear` does, and nothing else: some libraries' layers (mmcv's) only look different.

    Seen in one call: what it returns is what `F.linear` returned, of its input, its weight and its bias.
    """
    if not isinstance(module, nn.Linear) or module._buffers or module._modules or len(module._parameters) != 2:
        return False
    if type(module).forward is nn.Linear.forward:
        return True
    given = module.weight.detach().new_zeros(2, module.in_features)
    wanted = (given, module.weight, module.bias)
    try:
        with torch.no_grad(), _Listener() as heard:
            output = module.forward(given)
    except Exception:  # it reads more than one tensor
        return False
    return any(output is out and all(a is b for a, b in zip(args, wanted, strict=True)) for args, out in heard.calls)


class _Listener(TorchFunctionMode):
    """Keeps arguments and output of every `F.linear` inside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], Any]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.linear and not kwargs:
            self.calls.append((args, out))
        return out


def _shared(module: nn.Module) -> Any:
    """A module of the same class with the same tensors, in containers of its own."""
    made = type(module).__new__(type(module))
    share(module, made)
    return made


def share(one: nn.Module, other: nn.Module) -> None:
    """Give a module what another has, in containers of its own."""
    own = {k: dict(v) if k in ("_parameters", "_buffers", "_modules") else v for k, v in vars(one).items()}
    vars(other).update(own)


@cache
def _functional() -> Any:
    """bitsandbytes' functions; imported where one is needed, because it takes seconds."""
    return importlib.import_module("bitsandbytes.functional")


__all__ = [
    "QuantizedLinear",
    "QuantizedTransposed",
    "across",
    "quant_state",
    "quantize",
    "quantized",
    "share",
    "state_parts",
    "transposed",
]
