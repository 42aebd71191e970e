"""Small transformers models: fewer layers, narrower, a small vocabulary and a small image."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from mdpd_plugins.zoos.huggingface.models import IMAGE, architecture, model_types
from mdpd_plugins.zoos.small_forms import MAX_PARAMETERS, cut, first_working

FORMS = ((3, 16), (3, 8), (3, 4), (14, 16), (None, 16), (None, 8), (3, 2), (3, 64), (3, 1), (None, 1))
VOCABULARY = 1200
SIZES = (64, 224, None)
PIXELS = 12 * 12


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options of `build` for `huggingface/<model>`."""
    import transformers

    arch = architecture(name.partition("/")[2])
    config = transformers.AutoConfig.for_model(arch.model_type, **arch.config)
    heads = model_types().get(arch.model_type, [])
    heads = heads if len(heads) > 1 and not arch.hub else [""]
    found = {}
    for head in heads:
        chosen = architecture(name.partition("/")[2], head)
        fixed: dict[str, Any] = {"head": head} if head else {}
        if chosen.auto_class == IMAGE and "n_positions" in config.__dict__:
            fixed["n_positions"] = PIXELS  # a token for each pixel (ImageGPT)
        auto = getattr(transformers, chosen.auto_class)
        forms = (f for f in _forms(config) if _fits(auto, config.model_type, arch.config, f))
        found[head] = first_working(name, ({**fixed, **options} for options in forms))
    return found


def small_config(model_type: str) -> Any:
    """The configuration of a small model of this type, whatever its head."""
    import transformers

    form = next(_forms(transformers.AutoConfig.for_model(model_type)))
    return transformers.AutoConfig.for_model(model_type, **form)


def _fits(auto, model_type: str, given: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a form is small, counted without memory; True where that cannot be found out."""
    import torch
    import transformers

    try:
        with torch.device("meta"):
            model = auto.from_config(transformers.AutoConfig.for_model(model_type, **{**given, **options}))
    except Exception:  # building it in earnest says what is wrong
        return True
    return sum(p.numel() for p in model.parameters()) <= MAX_PARAMETERS


def _forms(config) -> Iterator[dict[str, Any]]:
    fields = _plain(config)
    sized = "image_size" in _keys(fields)
    for depth, factor in FORMS:
        for size in SIZES if sized else (None,):
            yield _form(config, fields, depth, factor, size)


def _form(config, fields: dict[str, Any], depth: int | None, factor: int, size: int | None) -> dict[str, Any]:
    if depth is not None:
        depth = max(depth, _pattern(config))
    changes = cut(fields, depth, factor)
    changes.update(_adjusted(config, fields, changes, size))
    return changes


def _adjusted(config, fields: dict[str, Any], cuts: dict[str, Any], size: int | None) -> dict[str, Any]:
    """What follows in `config` and each configuration inside it once widths and depths are cut."""
    found = {**_vocabulary(config), **_derived(config, cuts)}
    image = getattr(config, "image_size", None)
    if size is not None and image is not None:
        found["image_size"] = size if isinstance(image, int) else [size] * len(image)
    for name in ("n_routed_experts", "num_experts", "num_local_experts"):
        # Fewer experts, still more than are asked at once; two in each group at least, where they are grouped.
        least = max(8, 2 * (getattr(config, "n_group", None) or 0))
        if isinstance(getattr(config, name, None), int) and getattr(config, name) > least:
            found[name] = least
    for name in ("num_experts_per_tok", "num_experts_per_token", "top_k"):
        if isinstance(getattr(config, name, None), int) and getattr(config, name) > 2 and "num_experts" in found:
            found[name] = 2
    for name in ("chunk_size", "mamba_chunk_size"):
        # Mamba 2 pads every text to a whole chunk, of which it makes a table of all pairs.
        if isinstance(getattr(config, name, None), int) and getattr(config, name) >= 128:
            found[name] = 16
    if 0 < getattr(config, "initializer_range", 1) < 1e-6:
        found["initializer_range"] = 0.02  # SAM's random weights are so small that nothing reaches the output
    depth = cuts.get("num_hidden_layers")
    if depth is not None:  # what lists something for every layer lists it for those that are left
        listed = [k for k, v in fields.items() if isinstance(v, list) and len(v) == fields["num_hidden_layers"]]
        found.update({k: cuts.get(k, fields[k])[:depth] for k in listed})
    for key, part in _parts(config).items():
        inner = cuts.get(key, {})
        found[key] = {**fields[key], **inner, **_adjusted(part, fields[key], inner, size)}
    return found


def _vocabulary(config) -> dict[str, Any]:
    found: dict[str, Any] = {}
    size = getattr(config, "vocab_size", None)
    if not isinstance(size, int):
        if "vocab_size" not in config.__dict__:
            return found
        found["vocab_size"] = size = VOCABULARY
    if size > VOCABULARY:
        found["vocab_size"] = size = VOCABULARY
    free = size - 1
    for key, value in sorted(config.__dict__.items()):
        if key.endswith("_token_id") and isinstance(value, int) and value >= size:
            found[key], free = free, free - 1
    if getattr(config, "pad_token_id", 0) is None and "pad_token_id" not in found:
        found["pad_token_id"] = 0  # decoders find the last token of a text by it
    return found


def _derived(config, changes: dict[str, Any]) -> dict[str, Any]:
    """Fields left open whose usual meaning some models do not work out themselves."""

    def value(key: str) -> Any:
        return changes[key] if key in changes else _read(config, key)

    found: dict[str, Any] = {}
    heads, width = value("num_attention_heads"), value("hidden_size")
    if isinstance(heads, int) and isinstance(width, int):
        if "head_dim" in config.__dict__ and _read(config, "head_dim") is None:
            found["head_dim"] = width // heads
        if "num_key_value_heads" in config.__dict__ and _read(config, "num_key_value_heads") is None:
            found["num_key_value_heads"] = heads
    if getattr(config, "languages", None) and getattr(config, "default_language", "") is None:
        found["default_language"] = next(iter(config.languages))
    odd = getattr(config, "moe_intermediate_size", None)
    if isinstance(odd, int) and odd % 16:  # kernels for grouped experts read rows of whole 16 bytes
        found["moe_intermediate_size"] = max(16, odd // 128 * 16)
    kinds, rope = getattr(config, "layer_types", None) or [], getattr(config, "rope_parameters", None)
    head = value("head_dim") or (width // heads if isinstance(heads, int) and isinstance(width, int) else 0)
    if isinstance(rope, dict):
        head = int(head * (rope.get("partial_rotary_factor") or 1))
    third = head // 6
    sections = [head // 2 - 2 * third, third, third]
    if isinstance(rope, dict) and "mrope_section" in rope and "head_dim" in config.__dict__:
        # Sections of a head, which has to stay as wide as they are together.
        found["head_dim"] = config.head_dim or config.hidden_size // config.num_attention_heads
    elif isinstance(rope, dict) and "rope_type" in rope and _has_sections(config):
        found["rope_parameters"] = {**rope, "mrope_section": sections}
    elif "rope_parameters" in config.__dict__ and not rope and kinds:
        settings = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
        found["rope_parameters"] = {kind: settings for kind in sorted(set(kinds))}
    for name, usual in (("num_experts_per_tok", 2), ("n_routed_experts", 8), ("n_shared_experts", 1)):
        if getattr(config, name, usual) is None:
            found[name] = usual
    return found


def _read(config, key: str) -> Any:
    """A field; the one for all layers where some have their own, which transformers reads on request only."""
    try:
        return getattr(config, key, None)
    except RuntimeError:
        return config.__dict__[key]


def _has_sections(config) -> bool:
    """Whether the model's code divides its heads into sections that the configuration need not name (Qwen2-VL)."""
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        return "mrope_section" in inspect.getsource(importlib.import_module(module))
    except (ImportError, OSError):
        return False


def _pattern(config) -> int:
    """Layers that it takes to see every kind of layer once."""
    needed = 0
    for part in (config, *_parts(config).values()):
        kinds = getattr(part, "layer_types", None) or []
        needed = max([needed, *(list(kinds).index(k) + 1 for k in set(kinds))])
        offsets = [v for k, v in part.__dict__.items() if k.endswith("_layer_offset") and isinstance(v, int)]
        needed = max([needed, *(v + 1 for v in offsets)])
    return needed


def _parts(config) -> dict[str, Any]:
    from transformers import PretrainedConfig

    return {k: v for k, v in config.__dict__.items() if isinstance(v, PretrainedConfig)}


def _plain(config) -> dict[str, Any]:
    parts = _parts(config)
    skipped = ("id2label", "label2id", "transformers_version", "model_type", "layer_types", "stage_names")
    found = {
        k: v for k, v in config.__dict__.items() if not k.startswith("_") and k not in skipped and (k not in parts)
    }
    if "depths" in found:  # then the number of stages, worked out from it
        found.pop("num_layers", None)
        found.pop("num_hidden_layers", None)
    return {**found, **{k: _plain(v) for k, v in parts.items()}}


def _keys(fields: dict[str, Any]) -> set[str]:
    return set(fields) | {k for v in fields.values() if isinstance(v, dict) for k in v}


__all__ = ["small", "small_config"]
