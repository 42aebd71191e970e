"""Small transformers models: fewer layers, narrower, a small vocabulary and a small image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mdpd_plugins.reduction.search import MAX_PARAMETERS, cut, first_working
from mdpd_plugins.zoos.huggingface_models import architecture, model_types

FORMS = ((3, 16), (3, 8), (3, 4), (None, 16), (None, 8), (3, 2), (3, 64), (3, 1), (None, 1))
VOCABULARY = 1200
POSITIONS = 128
SIZES = (64, 224, None)


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options of `build` for `huggingface/<model>`."""
    import transformers

    arch = architecture(name.partition("/")[2])
    config = transformers.AutoConfig.for_model(arch.model_type, **arch.config)
    heads = model_types().get(arch.model_type, [])
    heads = heads if len(heads) > 1 and not arch.hub else [""]
    found = {}
    for head in heads:
        fixed = {"head": head} if head else {}
        auto = getattr(transformers, architecture(name.partition("/")[2], head).auto_class)
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
    for key, part in {"": config, **_parts(config)}.items():
        extra = {**_vocabulary(part), **_derived(part, {**changes.get(key, {}), **({} if key else changes)})}
        if size is not None and isinstance(getattr(part, "image_size", None), int):
            extra["image_size"] = size
        for name in ("n_routed_experts", "num_experts", "num_local_experts"):
            # Fewer experts, still more than are asked at once.
            # Two in each group at least, where they are grouped.
            least = max(8, 2 * (getattr(part, "n_group", None) or 0))
            if isinstance(getattr(part, name, None), int) and getattr(part, name) > least:
                extra[name] = least
        for name in ("num_experts_per_tok", "num_experts_per_token", "top_k"):
            if isinstance(getattr(part, name, None), int) and getattr(part, name) > 2 and "num_experts" in extra:
                extra[name] = 2
        if key:
            changes[key] = {**fields[key], **changes.get(key, {}), **extra}
        else:
            changes.update(extra)
    return changes


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
        return changes.get(key, getattr(config, key, None))

    found: dict[str, Any] = {}
    heads, width = value("num_attention_heads"), value("hidden_size")
    if isinstance(heads, int) and isinstance(width, int):
        if "head_dim" in config.__dict__ and config.head_dim is None:
            found["head_dim"] = width // heads
        if "num_key_value_heads" in config.__dict__ and config.num_key_value_heads is None:
            found["num_key_value_heads"] = heads
    if getattr(config, "languages", None) and getattr(config, "default_language", "") is None:
        found["default_language"] = next(iter(config.languages))
    if getattr(config, "num_experts_per_tok", 1) is None:
        found["num_experts_per_tok"] = 2
    return found


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
