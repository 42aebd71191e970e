"""Live models as people bring them: wrappers are taken off, and what cannot be trained is refused before it is tried.

Told by what a model is, so that none of the libraries that change models has to be installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy

from mdpd_plugins.registry.errors import CapabilityError

PLAIN = (torch.Tensor, nn.Parameter, FakeTensor)  # a plan's tensors have no numbers
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unwrapped(model: nn.Module) -> nn.Module:
    """The plain model inside DataParallel, DistributedDataParallel and `torch.compile`'s wrapper; a warning says so."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # torch.compile's, which is no public class
            inner = model._orig_mod
        else:
            return model
        warnings.warn(
            f"{type(model).__name__} is only a wrapper: the {type(inner).__name__} in it is adapted, trained and "
            f"exported. Wrap it again afterwards",
            stacklevel=4,
        )
        model = inner


def check_plain(model: nn.Module) -> None:
    """Refuse a model whose layers or weights cannot be trained as they are.

    Raises:
        CapabilityError: it is a TorchScript program, or holds another library's adapters, compiled modules, quantised
            or otherwise special weights, weights without numbers or a shape, made in inference mode, of float64, or
            of several types. The message has the way out.
    """
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise CapabilityError(
            f"{kind} is a TorchScript program, and nothing can look inside it: give the model that it was made from"
        )
    for name, module in model.named_modules():
        where = f"{name} of {kind}" if name else kind
        if type(module).__module__.partition(".")[0] == "peft":
            raise CapabilityError(
                f"{where} is a {type(module).__name__} of peft: an export would hold its parts under other names. "
                f"Merge it into the plain model first, model = model.merge_and_unload(), and adapt that; mdpd_low_rank "
                f"trains low-rank updates of its own"
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise CapabilityError(
                f"{where} was compiled in place (module.compile()), and nothing can look inside it: adapt the model "
                f"before it is compiled"
            )
    for name, tensor in _tensors(model):
        _check_tensor(tensor, f"{name} of {kind}")
    _check_one_type(model)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from ((n, b) for n, b in model.named_buffers() if is_lazy(b) or b.is_floating_point())


def _check_tensor(tensor: torch.Tensor, name: str) -> None:
    if is_lazy(tensor):
        raise CapabilityError(f"{name} has no shape yet: call the model once on its inputs before it is adapted")
    if tensor.is_meta and not isinstance(tensor, FakeTensor):
        raise CapabilityError(
            f"{name} has no numbers here (device 'meta'): they are kept elsewhere (offloaded by accelerate), or were "
            f"never loaded. Load the whole model onto one device, without device_map='auto' or an offload folder"
        )
    if tensor.dtype not in NUMBERS or not isinstance(tensor.data, PLAIN) or type(tensor.data) not in PLAIN:
        held = type(tensor.data if type(tensor) is nn.Parameter else tensor).__name__
        raise CapabilityError(
            f"{name} is quantised or kept in a special form ({held}, {tensor.dtype}), and a plain checkpoint of "
            f"trained weights cannot be written from it: load the model without quantisation, or build it by name, "
            f"mdpd.create(..., quantization='nf4')"
        )
    if tensor.is_inference():
        raise CapabilityError(
            f"{name} was made under torch.inference_mode(), so no gradient can ever reach it: build or load the model "
            f"outside of it, or take a copy made outside, model = copy.deepcopy(model)"
        )
    if tensor.dtype == torch.float64:
        raise CapabilityError(
            f"{name} is of {tensor.dtype}, and training is in float32, bfloat16 or float16: give model.float()"
        )


def _check_one_type(model: nn.Module) -> None:
    first: dict[torch.dtype, str] = {}
    for name, parameter in model.named_parameters():
        first.setdefault(parameter.dtype, name)
    if len(first) > 1:
        found = " and ".join(f"{name} is of {dtype}" for dtype, name in first.items())
        raise CapabilityError(
            f"{type(model).__name__} has weights of several types, and what trains is to have one: {found}. Give "
            f"model.float(), or model.to(torch.bfloat16)"
        )


__all__ = ["check_plain", "unwrapped"]
