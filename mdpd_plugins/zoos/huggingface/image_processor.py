"""Pictures as transformers' own image processors prepare them."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.adapters.storage.trust import remote_code_trusted
from mdpd_plugins.adapters.storage.weights import hub_reachable
from mdpd_plugins.adapters.transform import PictureTransform, Size, Tensors, as_rgb, fixed_size, probe, real_tensors
from mdpd_plugins.registry.errors import CheckpointError, MDPDError
from mdpd_plugins.zoos.timm.data import timm_transform
from mdpd_plugins.zoos.transformers_code import own_code_only

_LOG = logging.getLogger(__name__)
_PIXELS = "pixel_values"
# Fields of a processor that hold lengths in pixels.
_LENGTHS = ("size", "crop_size")
# What leaves a picture its shape and its content.
_UNCUT: dict[str, Any] = {"do_center_crop": False, "do_pad": False, "do_resize": True}
_NUMBERS = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_UNTOUCHED = {"do_resize": False, "do_center_crop": False, "do_pad": False}


class ProcessedPictures:
    """A transformers image processor whose pictures all come out in one size.

    Args:
        processor: the processor. size: (height, width) of what it makes.
    """

    def __init__(self, processor: Any, size: Size) -> None:
        self.processor = processor
        self.size = size

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        return {"image": torch.as_tensor(processed(self.processor, list(as_rgb(images)))).float()}


def processed(processor: Any, images: list[Image.Image], **changes: Any) -> Any:
    """(B, C, H, W) of RGB pictures; `changes` are the processor's fields, for this call."""
    if hasattr(processor, "do_color_quantize"):
        changes["do_color_quantize"] = False  # colours to tokens is the adapter's part (ImageGPT)
    kind = "np" if getattr(processor, "backend", "") == "pil" else "pt"
    return processor(images, return_tensors=kind, **changes)[_PIXELS]


def image_processor(source: str, config: Any) -> tuple[Any, bool]:
    """(processor, whether it came with the weights): that of a checkpoint, else a new one of the family's class.

    Args:
        source: folder or hub id of the weights; "" for none. config: the model's configuration.

    Raises:
        CheckpointError: there is a file of settings, and transformers cannot make a processor of it.
    """
    if source and (found := _saved(source)) is not None:
        return found, True
    default = _default(config)
    if source:
        _LOG.warning(
            "%s holds no settings of an image processor (preprocessor_config.json, processor_config.json): pictures "
            "are prepared by %s with its defaults, which may not be what these weights were trained with",
            source,
            type(default).__name__,
        )
    return default, False


def _saved(source: str) -> Any:
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import get_image_processor_config
    from transformers.utils.generic import is_timm_config_dict

    for place in (source, _repository(source)):
        if not place:
            continue
        local = os.path.isdir(place)
        try:
            settings = get_image_processor_config(place, local_files_only=local)
            if not settings and not (local and is_timm_config_dict(_json(Path(place, "config.json")))):
                continue
            # Pillow's arithmetic, in which a picture is the same on every machine.
            given = {"local_files_only": local, "trust_remote_code": remote_code_trusted(), "backend": "pil"}
            with own_code_only(place):
                return AutoImageProcessor.from_pretrained(place, **given)
        except MDPDError:
            raise
        except Exception as error:  # whatever a damaged or foreign file makes of it
            raise CheckpointError(
                f"the image processor's settings in {place!r} cannot be used ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}): correct "
                f"preprocessor_config.json, or remove it to prepare pictures by the family's defaults"
            ) from error
    return None


def _json(path: Path) -> dict[str, Any]:
    import json

    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _repository(folder: str) -> str:
    """The hub id that a snapshot in the hub's cache is of, if the hub can be asked for more of it; else ""."""
    # CACHE/models--organisation--name/snapshots/REVISION
    place = Path(folder)
    kind, _, name = (place.parent.parent.name if place.parent.name == "snapshots" else "").partition("--")
    repo = name.replace("--", "/")
    return repo if kind == "models" and repo and hub_reachable(repo) else ""


def _default(config: Any) -> Any:
    from transformers.models.auto import image_processing_auto as auto

    names: Any = vars(auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]

    for model_type in (config.model_type, _larger(config)):
        if model_type in names:
            kind = auto._load_class_with_fallback(names[model_type], "pil")
            try:
                return kind()
            except Exception:  # some cannot be made of nothing (timm's wrapper)
                break
    return _plain()


def _larger(config: Any) -> str:
    """The type of the larger model that a tower's configuration belongs to ("clip" of "clip_vision_model"), or ""."""
    import sys

    for kind in vars(sys.modules[type(config).__module__]).values():
        parts = getattr(kind, "sub_configs", None) or {}
        if isinstance(kind, type) and type(config) in parts.values() and kind is not type(config):
            return str(getattr(kind, "model_type", ""))
    return ""


def _plain(**fields: Any) -> Any:
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(**fields)


def own_size(processor: Any) -> Size | None:
    """(height, width) of all that a processor makes; None where that depends on the picture, or is no picture."""

    def shape_of(image: Image.Image) -> Sequence[int]:
        shape = tuple(processed(processor, [image]).shape)
        if len(shape) != 4 or shape[:2] != (1, 3):
            raise ValueError("no picture comes out: patches, several crops, ...")
        return shape

    try:
        return fixed_size(shape_of)
    except Exception:  # whatever it raises for settings that do not go together
        return None


def prepared_at(processor: Any, size: Size, stretch: bool) -> PictureTransform:
    """The transform of a processor at a size.

    Args:
        processor: one of transformers'.
        size: (height, width). If it is not the processor's own, all its lengths change in proportion.
        stretch: the whole picture, stretched, instead of the processor's own resizing, cropping and padding. It is
            stretched too where a processor makes pictures of different sizes, since those make no batch.
    """
    if hasattr(processor, "data_config"):  # timm's transform in a processor's clothes
        return timm_transform(processor.data_config, size, stretch)
    own = own_size(processor)
    if own is not None and not stretch:
        changed = processor if own == size else at_size(processor, own, size)
        if own == size or own_size(changed) == size:
            return ProcessedPictures(changed, size)
    return ProcessedPictures(stretched(processor, size), size)


def at_size(processor: Any, own: Size, size: Size) -> Any:
    """A copy whose pictures come out in `size` instead of `own`; all lengths keep their proportions."""
    changed, (height, width) = copy.deepcopy(processor), (new / old for new, old in zip(size, own, strict=True))
    factors = {"height": height, "width": width, "max_height": height, "max_width": width}
    for field in _LENGTHS:
        lengths = getattr(changed, field, None)
        if lengths is not None:
            scaled = {k: round(v * factors.get(k, max(height, width))) for k, v in dict(lengths).items() if v}
            setattr(changed, field, type(lengths)(**scaled))
    return changed


def stretched(processor: Any, size: Size) -> Any:
    """A processor that stretches pictures to (height, width) and gives them the same numbers as `processor`.

    A copy of it where it can do that, else a plain one with its mean, deviation and scale.
    """
    height, width = size
    sides = {"height": height, "width": width}
    changed = copy.deepcopy(processor)
    for name, value in {**_UNCUT, "crop_pct": None}.items():
        if hasattr(changed, name):
            setattr(changed, name, value)
    changed.size = type(processor.size)(**sides) if getattr(processor, "size", None) else sides
    fields = {name: getattr(processor, name) for name in _NUMBERS if getattr(processor, name, None) is not None}
    plain = _plain(size=sides, **fields)
    # What is right is what it makes of a picture that needs no fitting. The copy may resize by other arithmetic than
    # Pillow's, which differs by a level or two; the plain one must be the same in everything else.
    picture = probe((2 * width + 1, height + 1))
    whole = picture.resize((width, height), getattr(processor, "resample", None) or Image.Resampling.BILINEAR)
    try:
        right = _numbers(processor, whole, **_accepted(processor, _UNTOUCHED))
        if np.allclose(_numbers(changed, picture), right, atol=0.1 * float(right.std())):
            return changed
    except Exception:  # whatever it raises for settings that do not go together
        pass
    return plain


def _numbers(processor: Any, image: Image.Image, **changes: Any) -> np.ndarray:
    with real_tensors():
        found = np.asarray(processed(processor, [image], **changes))
    if found.shape[:2] != (1, 3) or found.ndim != 4:
        raise ValueError("no picture comes out")
    return found


def patch_processor(processor: Any, size: Size, patch: int) -> Any:
    """A SigLIP 2 processor, which keeps a picture's shape, for as many patches as a picture of `size` has."""
    from transformers import Siglip2ImageProcessorPil

    fields = {name: getattr(processor, name) for name in _NUMBERS}
    return Siglip2ImageProcessorPil(**fields, patch_size=patch, max_num_patches=(size[0] // patch) * (size[1] // patch))


def colour_processor(processor: Any, palette: torch.Tensor) -> Any:
    """An ImageGPT processor with a palette, (K, 3) in -1..1."""
    processor.clusters = palette.numpy()
    return processor


def _accepted(processor: Any, changes: dict[str, Any]) -> dict[str, Any]:
    known = getattr(processor, "_valid_kwargs_names", ())
    return {name: value for name, value in changes.items() if name in known}


__all__ = [
    "ProcessedPictures",
    "colour_processor",
    "image_processor",
    "own_size",
    "patch_processor",
    "prepared_at",
]
