"""Low-rank updates of the backbone's linear layers and convolutions, by peft, merged into its weights at fading."""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.original import stored_tensors
from mdpd_plugins.adapters.quantized import quantized_layers
from mdpd_plugins.adapters.quantized_attention import QuantizedAttention, added, with_weights
from mdpd_plugins.adapters.quantized_linear import QuantizedLinear, QuantizedTransposed, transposed
from mdpd_plugins.adapters.storage.mapped import mapped
from mdpd_plugins.adapters.storage.precision import weight_type
from mdpd_plugins.freed_memory import give_back
from mdpd_plugins.registry.errors import CapabilityError, MissingDependencyError

# LoRA's usual places (arXiv:2106.09685, sec. 4.2): query and value; fused projections count as both.
_QUERY_VALUE = re.compile(
    r"(^|\.)(q|v|query|value|q_proj|v_proj|q_lin|v_lin|qkv|qkv_proj|query_key_value|c_attn|Wqkv)$"
)


def low_rank_targets(adapter: Adapter, *, everywhere: bool) -> list[str]:
    """Names of the modules in the blocks that get an update.

    Args:
        everywhere: all linear layers and convolutions; otherwise query and value projections. `nn.MultiheadAttention`
            is one target: it never calls its inner linear layer. Grouped and depthwise convolutions are none: peft
            cannot merge their updates. Nor are layers whose weight is worked out from others (weight or spectral
            normalisation, other parametrizations): there is no weight that an update could be added to.

    Raises:
        CapabilityError: the blocks have none.
    """
    found: list[str] = []
    refused = _refused_by_peft(adapter.model)
    for block_name, block in adapter.named_blocks:
        inside: list[str] = []
        for name, module in block.named_modules():
            full = f"{block_name}.{name}" if name else block_name
            if any(full.startswith(f"{m}.") for m in inside) or module is block:  # a block stays the module it is
                continue
            if computes_its_weight(module):
                inside.append(full)
            elif isinstance(module, nn.MultiheadAttention):
                inside.append(full)
                found.append(full)
            elif full.rpartition(".")[2] in refused:
                continue
            elif (_linear(module) or _plain_convolution(module)) and (everywhere or _QUERY_VALUE.search(name)):
                found.append(full)
    if not found:
        what = "linear layers or plain convolutions" if everywhere else "query and value projections"
        raise CapabilityError(
            f"{adapter.name} has no {what} in its blocks that a low-rank update could go to: train its norms instead, "
            f"with distill.method='mdpd' or distill.backbone_update='norm'"
        )
    return found


def _refused_by_peft(model: nn.Module) -> set[str]:
    """Names of layers that peft gives no update in models of this kind (Mamba's fused kernels read their weights)."""
    try:
        from peft import LoraConfig
        from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as check  # the list is in there alone
    except ImportError:  # no peft, which `inject` reports, or one from before that check
        return set()
    config, refused = LoraConfig(), set()
    for name in {name.rpartition(".")[2] for name, _ in model.named_modules()}:
        try:
            check(config, model, name)
        except ValueError:
            refused.add(name)
    return refused


def computes_its_weight(module: nn.Module) -> bool:
    """Whether a layer, or one inside an attention, makes its weight anew from other tensors at each forward.

    By a parametrization; or by a hook, as pruning and PyTorch's older normalisations do, which then leave the weight
    among the module's ordinary attributes.
    """
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return any(
        is_parametrized(part) or (isinstance(part, kinds) and "weight" in vars(part))
        for part in (module.modules() if isinstance(module, nn.MultiheadAttention) else [module])
    )


def _linear(module: nn.Module) -> bool:
    """Whether it is a linear layer: not one that was made into something else.

    Such as Llama 4's router, which answers with several tensors, or DeepSeek V4's, which wants groups of inputs.
    """
    if not isinstance(module, nn.Linear) or type(module).forward in (nn.Linear.forward, QuantizedLinear.forward):
        return isinstance(module, nn.Linear) or transposed(module)
    try:
        with torch.no_grad():
            answer = module(module.weight.new_zeros(1, module.in_features))
    except Exception:  # whatever it wants, it is not what a linear layer takes
        return False
    return isinstance(answer, torch.Tensor) and answer.shape == (1, module.out_features)


def _plain_convolution(module: nn.Module) -> bool:
    """Whether the update that peft learns beside it can be merged into its kernel.

    Not that of a grouped one; nor where peft's own convolution would read other pixels (dilation, padding other than
    zeros); nor of one that computes its kernel or its padding itself (weight standardisation).
    """
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return False
    kind = nn.Conv1d if isinstance(module, nn.Conv1d) else nn.Conv2d
    plain = type(module).forward is kind.forward and type(module)._conv_forward is kind._conv_forward
    return plain and module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"


def inject(adapter: Adapter, *, everywhere: bool, rank: int) -> dict[str, nn.Parameter]:
    """Put peft's LoRA layers into the backbone, in place.

    Args:
        rank: r. The scale alpha / r is 2 (our choice: peft's common setting alpha = 2 r).

    Returns:
        Key in the changed model -> low-rank parameter.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            f"low-rank updates need peft ({error}): pip install 'mdpd-plugins[lora]'"
        ) from error
    targets = low_rank_targets(adapter, everywhere=everywhere)
    # peft sees for itself how a weight lies, and warns once a layer where it was not told.
    across = all(transposed(adapter.model.get_submodule(name)) for name in targets)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets, fan_in_fan_out=across)
    config._register_custom_module({nn.MultiheadAttention: _exact_attention()})
    inject_adapter_in_model(config, adapter.model)
    _share_updates(adapter.model)
    _show_geometry(adapter.model)
    _turn_updates(adapter.model)
    adapter.model.eval()
    return {n: p for n, p in adapter.parameters().items() if ".lora_" in n}


def _share_updates(model: nn.Module) -> None:
    # Layers that hold one weight between them (Zamba's attention) learn one update: it is merged into that weight once.
    first: dict[int, nn.Module] = {}
    for name in reversed(_layers(model)):
        layer: Any = model.get_submodule(name)
        if (weight := _weight(layer)) is not None and (other := first.setdefault(id(weight), layer)) is not layer:
            layer.lora_A, layer.lora_B = other.lora_A, other.lora_B


def _weight(layer: Any) -> torch.Tensor | None:
    """What an update is added to; None of an attention, which has several."""
    weight = layer.get_base_layer()._parameters.get("weight")
    return weight if isinstance(weight, torch.Tensor) else None


@cache
def _exact_attention() -> type[nn.Module]:
    """peft's layer around `nn.MultiheadAttention`, with a forward and a merging of our own.

    peft's adds the update to the weights before each forward and subtracts it afterwards. That rounds, so frozen
    weights would drift and a recomputed block differ. It also makes new parameters whenever somebody looks at them, and
    adds the update of the output's projection twice (its versions 0.18 to 0.21).
    """
    from peft.tuners.lora.layer import MultiheadAttention

    class ExactMultiheadAttention(MultiheadAttention):
        def forward(self, *args, **kwargs):
            attention = self.get_base_layer()
            if isinstance(attention, QuantizedAttention):
                return attention(*args, updates=self._updates, **kwargs)
            more, more_out = self._updates()
            weights = added(attention.in_proj_weight, more), added(attention.out_proj.weight, more_out)
            return with_weights(attention, *weights, type(attention))(*args, **kwargs)

        def _updates(self):
            (name,) = self.active_adapters
            return self.get_delta_weight(name), self.get_base_layer().out_proj.get_delta_weight(name)

        def _restore_weights(self):
            pass  # none was ever taken out

        def unload_and_optionally_merge_module(self, merge, *args, **kwargs):
            attention = self.get_base_layer()
            more, more_out = self._updates()
            attention.out_proj = out = attention.out_proj.get_base_layer()
            if merge:
                attention.in_proj_weight.data = added(attention.in_proj_weight.data, more.detach())
                out.weight.data = added(out.weight.data, more_out.detach())
            return attention

    return ExactMultiheadAttention


def _show_geometry(model: nn.Module) -> None:
    # A model may read a convolution's stride before it calls it (MobileNet, to pad as TensorFlow does), and peft's
    # layer around it has none.
    from peft.tuners.lora.layer import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(base := module.get_base_layer(), (nn.Conv1d, nn.Conv2d)):
            for name in ("stride", "kernel_size", "dilation", "padding", "groups"):
                if not hasattr(module, name):
                    setattr(module, name, getattr(base, name))


def _turn_updates(model: nn.Module) -> None:
    # peft sees a linear layer in a quantised `Conv1D`, and the plain one gets its update with inputs first.
    from peft.tuners.lora.layer import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), QuantizedTransposed):
            vars(module)["fan_in_fan_out"] = True


def plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and stored buffers of a model with updates, but theirs, under the names of the plain model."""
    layers = _layers(model)
    return {_plain(key, layers): t for key, t in stored_tensors(model).items() if ".lora_" not in key}


def plain_names(model: nn.Module) -> dict[str, QuantizedLinear]:
    """Name in the plain model -> quantised layer of a model with updates."""
    layers = _layers(model)
    return {_plain(f"{name}.", layers).rstrip("."): layer for name, layer in quantized_layers(model)}


def updated_layers(model: nn.Module) -> set[str]:
    """Names, in the plain model, of the layers that have an update."""
    layers = _layers(model)
    return {_plain(f"{name}.", layers).rstrip(".") for name in layers}


def _plain(key: str, layers: list[str]) -> str:
    for name in layers:
        if key.startswith(f"{name}.base_layer."):
            key = f"{name}.{key.removeprefix(f'{name}.base_layer.')}"
    return key


def _layers(model: nn.Module) -> list[str]:
    """Names of the layers that have an update, an inner one before the one that it lies in."""
    if "peft" not in sys.modules:  # then nothing was put in, and importing it would take seconds
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = (n for n, m in model.named_modules() if isinstance(m, BaseTunerLayer))
    return sorted(found, key=len, reverse=True)


def remove(model: nn.Module, *, merge: bool, in_files: bool = False) -> int:
    """Put the plain layers back, with every update added to the weight it belongs to, or without them.

    An update is added in float32, or the weights' type if that is wider, and the sum is rounded once.

    Args:
        in_files: leave each changed weight in a file (`mapped`) before the next one is changed.

    Returns:
        How many layers had an update; 0 for a model without any.
    """
    names = _layers(model)
    # peft's attention layer holds a wrapped projection of its own, which it puts back itself.
    names = [n for n in names if not any(n.startswith(f"{outer}.") for outer in names)]
    updated: set[int] = set()  # weights that several layers hold get their update once
    for name in names:
        layer: Any = model.get_submodule(name)
        own = weight_type(layer.get_base_layer())
        weight = _weight(layer)
        adds = merge and (weight is None or id(weight) not in updated)
        updated.add(id(weight))
        if adds:
            # A weight that is added to where a file is mapped would stay in memory beside the file.
            _to_type(layer, torch.promote_types(own, torch.float32), copy=in_files)
        if hasattr(layer, "unload_and_optionally_merge_module"):
            plain = layer.unload_and_optionally_merge_module(merge=adds, safe_merge=False, adapter_names=None)
        else:
            if adds:
                layer.merge()
            plain = layer.get_base_layer()
        _to_type(plain, own)
        for parameter in plain.parameters() if in_files else ():
            if parameter.dim() > 1:
                parameter.data = mapped(parameter.data)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, plain)
        give_back()  # wider copies of weights lie between those that stay
    vars(model).pop("peft_config", None)  # peft's note of what it put in
    return len(names)


def _to_type(module: nn.Module, dtype: torch.dtype, *, copy: bool = False) -> None:
    for parameter in module.parameters():
        if parameter.is_floating_point():  # not what is held quantised
            parameter.data = parameter.data.to(dtype, copy=copy)


__all__ = [
    "computes_its_weight",
    "inject",
    "low_rank_targets",
    "plain_names",
    "plain_tensors",
    "remove",
    "updated_layers",
]
