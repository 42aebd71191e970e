"""Checkpoints whose weights bitsandbytes has quantised: read, and written as transformers saves them."""

from __future__ import annotations

import importlib
import re
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.quantized import check_quantization, put_in, quantized_layers
from mdpd_plugins.adapters.quantized_attention import QuantizedAttention
from mdpd_plugins.adapters.quantized_linear import QuantizedLinear, quant_state, state_parts
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, MissingDependencyError

METHOD = "bitsandbytes"


def quantized_by(config: Any, source: str) -> bool:
    """Whether the checkpoint that a configuration describes is quantised.

    Raises:
        CheckpointError: by a library other than bitsandbytes. MissingDependencyError: bitsandbytes is not installed.
    """
    about = getattr(config, "quantization_config", None)
    if about is None:
        return False
    about = about if isinstance(about, dict) else about.to_dict()
    method = str(about.get("quant_method", METHOD)).rpartition(".")[2].lower().replace("bits_and_bytes", METHOD)
    if method != METHOD:
        raise CheckpointError(
            f"{source!r} holds weights that {method} has quantised, and only bitsandbytes' can be trained beside: give "
            f"the checkpoint that was not quantised, and set backbone.quantization='nf4' or 'int8'"
        )
    _check_libraries(about)
    return True


def _check_libraries(about: dict[str, Any]) -> None:
    check_quantization("int8" if about.get("load_in_8bit") else "nf4")
    from transformers.utils.import_utils import is_accelerate_available

    if not is_accelerate_available():
        raise MissingDependencyError(
            "transformers reads quantised weights with accelerate: pip install 'mdpd-plugins[quantization]'"
        )


def held_alike(model: Any, dtype: torch.dtype) -> None:
    """Put layers that are trained beside in the place of bitsandbytes' own, in place: the same packed weights."""
    bnb: Any = importlib.import_module("bitsandbytes.nn")
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if isinstance(child, bnb.Linear4bit):
                state = child.weight.quant_state
                parts = {"packed": child.weight.data.view(torch.uint8), **state_parts(state)}
                about = {"kind": state.quant_type, "block": state.blocksize}
            elif isinstance(child, bnb.Linear8bitLt):
                parts = {
                    "packed": child.weight.data,
                    "scale": child.weight.SCB if child.state.SCB is None else child.state.SCB,
                }
                about = {"kind": "int8"}
            else:
                continue
            made = QuantizedLinear(child.in_features, child.out_features, child.bias, dtype, parts=parts, **about)
            setattr(parent, attribute, made)
    for part in (model, *model.modules()):
        if getattr(part, "config", None) is not None and hasattr(part.config, "quantization_config"):
            del part.config.quantization_config
    # How its packed weights were read, which cannot be turned round, is none of a save's business.
    if (conversions := getattr(model, "_weight_conversions", None)) is not None:
        model._weight_conversions = [c for c in conversions if not _reads_packed(c)]
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "hf_quantizer", "quantization_method"):
        vars(model).pop(name, None)


def _reads_packed(conversion: Any) -> bool:
    return any("bitsandbytes" in type(o).__module__ for o in getattr(conversion, "operations", ()))


def only_in_blocks(adapter: Any) -> None:
    """Make plain layers, with the same numbers, of those that are quantised outside of the blocks, such as a head."""
    names = tuple(f"{name}." for name, _ in adapter.named_blocks)
    outside = {layer: layer.plain() for name, layer in quantized_layers(adapter.model) if not name.startswith(names)}
    put_in(adapter.model, outside)


def check_savable(model: Any, name: str) -> None:
    """Raise CapabilityError unless `as_saved` can say how a model's layers are held, and they then run here."""
    layers = dict(quantized_layers(model))
    attention = next((n for n, m in model.named_modules() if isinstance(m, QuantizedAttention)), None)
    if attention is not None:
        raise CapabilityError(
            f"{attention} of {name} is PyTorch's own attention, for which bitsandbytes has no form: "
            f"export the checkpoint's own weights, without quantized_export"
        )
    ways = {(q.kind, q.block, q.scale_scale is not None) for q in layers.values()}
    if len(ways) != 1:
        raise CapabilityError(
            f"{name} has linear layers of several quantisations, which no file can say: {sorted(ways)}"
        )
    # bitsandbytes packs weights anew for inference on such a processor, row by row of whole blocks.
    rows = [n for n, q in layers.items() if q.kind != "int8" and q.in_features % q.block]
    if rows and importlib.import_module("bitsandbytes.functional").has_avx512bf16():
        raise CapabilityError(
            f"{rows[0]} of {name} reads {layers[rows[0]].in_features} numbers, and bitsandbytes' own layer runs on "
            f"this processor for multiples of {layers[rows[0]].block} alone: export the checkpoint's own "
            f"weights, without quantized_export"
        )


def as_saved(model: Any) -> None:
    """Put bitsandbytes' own layers in the place of those that were trained beside, and say so in the configuration."""
    from transformers import BitsAndBytesConfig

    bnb: Any = importlib.import_module("bitsandbytes.nn")

    _, first = next(quantized_layers(model))
    kind, nested, dtype = first.kind, first.scale_scale is not None, first.dtype
    plain = [re.escape(n) for n, m in model.named_modules() if type(m) is nn.Linear]
    if kind == "int8":
        about: dict[str, Any] = {"load_in_8bit": True, "llm_int8_threshold": 0.0}
    else:
        about = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": kind,
            "bnb_4bit_use_double_quant": nested,
            "bnb_4bit_compute_dtype": dtype,
        }
    for parent in list(model.modules()):
        for attribute, layer in list(parent.named_children()):
            if not isinstance(layer, QuantizedLinear):
                continue
            sizes, bias = (layer.in_features, layer.out_features), layer.bias is not None
            made: Any
            if kind == "int8":
                made = bnb.Linear8bitLt(*sizes, bias, has_fp16_weights=False, threshold=0.0, device="meta")
                made.weight = bnb.Int8Params(
                    layer.packed.data,
                    requires_grad=False,
                    has_fp16_weights=False,
                    CB=layer.packed.data,
                    SCB=layer.scale,
                )
            else:
                made = bnb.Linear4bit(
                    *sizes, bias, compute_dtype=dtype, compress_statistics=nested, quant_type=kind, device="meta"
                )
                state = quant_state(layer, layer.kept)
                made.weight = bnb.Params4bit(
                    layer.packed.data,
                    requires_grad=False,
                    quant_state=state,
                    blocksize=layer.block,
                    compress_statistics=nested,
                    quant_type=kind,
                    module=made,
                    bnb_quantized=True,
                )
                made.quant_state = state
            made.bias = layer.bias
            made.training = layer.training
            setattr(parent, attribute, made)
    model.config.quantization_config = BitsAndBytesConfig(**about, llm_int8_skip_modules=plain)


__all__ = ["as_saved", "check_savable", "held_alike", "only_in_blocks", "quantized_by"]
