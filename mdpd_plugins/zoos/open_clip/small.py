"""Small OpenCLIP models, one form for each tower: fewer and narrower layers, a smaller image.

A timm tower is named by its timm model. Its small form is a model under a name of its own in timm's registry:
timm's own function for that model, called with fewer and narrower blocks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from mdpd_plugins.zoos.small_forms import cut, first_working

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
                changed: Iterable[dict[str, Any]] = _timm_models(
                    vision["timm_model_name"], depth, factor, size if size != original else None
                )
            elif isinstance(vision.get("layers"), list):
                changed = [{"layers": [1, 1, 1, 1] if depth else vision["layers"], "width": 64 // min(factor, 4)}]
            else:
                patch = vision["patch_size"]
                changes = {"layers": depth or vision["layers"], "width": vision["width"] // factor}
                changes["head_width"] = max(1, vision.get("head_width", 64) // factor)
                changed, size = [changes], 4 * patch if size == 64 else size
            for changes in changed:
                form = {"image_size": changes.pop("image_size", size), "vision_cfg": changes, "text_cfg": text}
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

    from mdpd_plugins.zoos.huggingface.small import small_config

    known = [t for t in CONFIG_MAPPING_NAMES if t in hub.lower()]
    # NLLB's dense models are M2M-100s by their configuration, which is all a name does not tell.
    model_type = "m2m_100" if "nllb" in hub else max(known, key=len)
    folder = tempfile.TemporaryDirectory(prefix="mdpd-")
    _KEPT.append(folder)
    small_config(model_type).save_pretrained(folder.name)
    return folder.name


_KEPT: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def _timm_models(name: str, depth: int | None, factor: int, size: int | None) -> Iterator[dict[str, Any]]:
    """Towers that are `name` with fewer and narrower blocks, at an image size or its own (None).

    Models with learned positions are made for a size; convolutional ones take no such argument and read any.
    """
    import timm

    entry = timm.model_entrypoint(name)
    arguments = _timm_arguments(entry)
    changes = _cut(arguments, depth, factor)
    if size is not None:
        patch = arguments.get("patch_size", 16)
        size = max(size, 4 * patch) // patch * patch
        yield {"timm_model_name": _alias(name, entry, {**changes, "img_size": size}), "image_size": size}
    yield {"timm_model_name": _alias(name, entry, changes)}


def _alias(name: str, entry: Any, changes: dict[str, Any]) -> str:
    """Register `entry` with other arguments under a name that only they have."""
    import timm
    from timm.models import register_model

    digest = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:12]
    alias = f"mdpd_{name.replace('.', '_')}_{digest}"
    if timm.is_model(alias):
        return alias

    def make(pretrained: bool = False, **kwargs: Any) -> Any:
        return entry(pretrained=False, **{**changes, **kwargs})

    make.__name__ = alias
    make.__module__ = entry.__module__
    register_model(make)
    return alias


class _Called(Exception):
    """Carries the arguments of a call that was not made."""


def _timm_arguments(entry: Any) -> dict[str, Any]:
    """What makes this timm model: all its entry points end in a call of their module's `_create_...`."""
    module = sys.modules[entry.__module__]
    makers = {k: v for k, v in vars(module).items() if k.startswith("_create_")}

    def called(*args: Any, **kwargs: Any) -> None:
        raise _Called(kwargs)

    try:
        for key in makers:
            setattr(module, key, called)
        entry(pretrained=False)
    except _Called as call:
        return call.args[0]
    finally:
        for key, maker in makers.items():
            setattr(module, key, maker)
    return {}


def _cut(arguments: dict[str, Any], depth: int | None, factor: int) -> dict[str, Any]:
    plain, records = {}, {}
    for key, value in arguments.items():
        if dataclasses.is_dataclass(value):  # ViTamin's stem
            inner = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            records[key] = dataclasses.replace(value, **cut(inner, depth, factor))
        else:
            plain[key] = value
    return {**cut(plain, depth, factor), **records}


__all__ = ["small"]
