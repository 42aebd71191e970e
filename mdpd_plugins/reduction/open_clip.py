"""Small OpenCLIP models, one form for each tower: fewer and narrower layers, a smaller image.

A timm tower is named by its timm model. Its small form is a model under a name of its own in timm's registry:
timm's own function for that model, called with fewer and narrower blocks.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

from mdpd_plugins.reduction.search import cut, first_working

FORMS = ((3, 8), (3, 4), (3, 2), (3, 1), (None, 4), (None, 1))
VOCABULARY = 1200


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options of `build` for `open_clip/<config>`: for the image tower and for the text tower."""
    import open_clip

    config = open_clip.get_model_config(name.partition("/")[2])
    image = first_working(name, ({"tower": "image", **form} for form in _forms(config)))
    text = {k: v for k, v in image.items() if k != "tower"}
    return {"image": image, "text": {"tower": "text", **text}}


def _forms(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    vision = config["vision_cfg"]
    text = _text(config["text_cfg"])
    original = vision.get("image_size", 224)
    for depth, factor in FORMS:
        for size in (64, original):
            if "timm_model_name" in vision:
                small_name = _timm_model(vision["timm_model_name"], depth, factor)
                changes: dict[str, Any] = {"timm_model_name": small_name}
            elif isinstance(vision.get("layers"), list):
                changes = {"layers": [1, 1, 1, 1] if depth else vision["layers"], "width": 64 // min(factor, 4)}
            else:
                patch = vision["patch_size"]
                changes = {"layers": depth or vision["layers"], "width": vision["width"] // factor}
                changes["head_width"] = max(1, vision.get("head_width", 64) // factor)
                size = 4 * patch if size == 64 else size
            form = {"image_size": size, "vision_cfg": changes, "text_cfg": text}
            if "multimodal_cfg" in config:
                form["multimodal_cfg"] = _text(config["multimodal_cfg"])
            yield form


def _text(text: dict[str, Any]) -> dict[str, Any]:
    if "hf_model_name" in text:
        return {"hf_model_name": _hf_folder(text["hf_model_name"])}
    width, heads = text.get("width", 512) // 8, max(1, text.get("heads", 8) // 4)
    return {"vocab_size": VOCABULARY, "layers": 3, "width": width, "heads": heads}


@cache
def _hf_folder(hub: str) -> str:
    """A folder with the configuration of a small model of the type that a hub name speaks of."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from mdpd_plugins.reduction.huggingface import small_config

    known = [t for t in CONFIG_MAPPING_NAMES if t in hub.lower()]
    # NLLB's dense models are M2M-100s by their configuration, which is all a name does not tell.
    model_type = "m2m_100" if "nllb" in hub else max(known, key=len)
    folder = tempfile.TemporaryDirectory(prefix="mdpd-")
    _KEPT.append(folder)
    small_config(model_type).save_pretrained(folder.name)
    return folder.name


_KEPT: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def _timm_model(name: str, depth: int | None, factor: int) -> str:
    import timm
    from timm.models import register_model

    alias = f"mdpd_{name.replace('.', '_')}_{depth}_{factor}"
    if timm.is_model(alias):
        return alias
    entry = timm.model_entrypoint(name)
    fields = _timm_fields(entry)
    changes = cut(fields, depth, factor)

    def make(pretrained: bool = False, **kwargs: Any) -> Any:
        return entry(pretrained=False, **{**changes, **kwargs})

    make.__name__ = alias
    make.__module__ = entry.__module__
    register_model(make)
    return alias


def _timm_fields(entry: Any) -> dict[str, Any]:
    """The arguments with which a timm entry point makes its model class, defaults of the class included."""
    import torch

    with torch.device("meta"):
        model = entry(pretrained=False)
    found: dict[str, Any] = {}
    for key, p in inspect.signature(type(model).__init__).parameters.items():
        if p.default is not p.empty:
            found[key] = p.default
    for key in list(found):
        value = getattr(model, key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[key] = value
    blocks = getattr(model, "blocks", None)
    if blocks is not None and "depth" in found:
        found["depth"] = len(blocks)
    return {k: v for k, v in found.items() if isinstance(v, (int, list, tuple))}


__all__ = ["small"]
