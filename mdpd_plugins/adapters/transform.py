"""Pictures and texts -> the tensors that a backbone takes, by its own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.adapters.pictures import to_rgb
from mdpd_plugins.registry import MODALITIES
from mdpd_plugins.registry.errors import ConfigError, closest

Tensors = dict[str, torch.Tensor]
Transform = Callable[[Sequence[Any]], Tensors]
"""A batch of examples -> inputs of the backbone."""

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_IMAGE_KEYS = ("size", "mean", "std", "interpolation", "fit")
_TEXT_KEYS = ("tokenizer", "max_length")
_FITS = ("stretch", "crop")


def make_transform(preprocessing: Mapping[str, Any], modality: str) -> Transform:
    """The transform that a backbone's preprocessing describes.

    Args:
        preprocessing: for images `size` (H, W), `mean` and `std` (three floats on the scale 0 to 1),
            `interpolation` (nearest, bilinear, bicubic, lanczos), and optionally `fit`: "stretch" (the
            default: resize to `size` whatever the shape) or "crop" (keep the shape, cut the middle out). For text
            `tokenizer` (a list of texts or of text pairs, max_length -> tensors padded to the longest of the
            batch) and `max_length`. For "image-text" `image` and `text`, each a mapping as above.
        modality: "image", "text" or "image-text".

    Returns:
        A function from a sequence of `PIL.Image`, `str`, `(str, str)` or `(PIL.Image, str)` to tensors. Of images:
        `image`, float32 (B, 3, H, W), normalised. Of text: what the tokenizer returns, `input_ids` and
        `attention_mask` (B, T) among it. Of "image-text": both together.

    Raises:
        ConfigError: an unknown modality, or a preprocessing key that is missing, unknown or out of range.
    """
    if modality == "image":
        _check_keys(preprocessing, _IMAGE_KEYS, required=_IMAGE_KEYS[:4], modality=modality)
        return ImageTransform(**preprocessing)
    if modality == "text":
        _check_keys(preprocessing, _TEXT_KEYS, required=_TEXT_KEYS, modality=modality)
        return TextTransform(**preprocessing)
    if modality == "image-text":
        parts = ("image", "text")
        _check_keys(preprocessing, parts, required=parts, modality=modality)
        return ImageTextTransform(*(make_transform(preprocessing[part], part) for part in parts))
    raise ConfigError(f"modality {modality!r} does not exist: {closest(str(modality), MODALITIES)}")


class ImageTransform:
    """Resize (antialiased, as PIL does it), scale to 0..1, normalise and stack; see `make_transform`."""

    def __init__(
        self,
        size: Sequence[int] | int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str,
        fit: str = "stretch",
    ) -> None:
        self.height, self.width = (size, size) if isinstance(size, int) else tuple(size)
        if min(self.height, self.width) < 1:
            raise ConfigError(f"preprocessing size={size!r}: height and width must be positive")
        if interpolation not in _INTERPOLATIONS:
            raise ConfigError(
                f"interpolation {interpolation!r} does not exist: {closest(str(interpolation), _INTERPOLATIONS)}"
            )
        if fit not in _FITS:
            raise ConfigError(f"preprocessing fit={fit!r} does not exist: {closest(str(fit), _FITS)}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(f"mean={mean!r} and std={std!r} must hold three values each, std above 0")
        self.resample = _INTERPOLATIONS[interpolation]
        self.fit = fit
        self.mean = torch.tensor([float(m) for m in mean]).view(1, 3, 1, 1)
        self.std = torch.tensor([float(s) for s in std]).view(1, 3, 1, 1)

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        rgb = map(to_rgb, images)
        pixels = torch.from_numpy(np.stack([np.asarray(self._resize(image)) for image in rgb]))
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return {"image": batch.div_(255).sub_(self.mean).div_(self.std)}

    def _resize(self, image: Image.Image) -> Image.Image:
        target = (self.width, self.height)
        if image.size == target:
            return image
        if self.fit == "stretch":
            return image.resize(target, self.resample)
        scale = min(image.width / self.width, image.height / self.height)
        width, height = self.width * scale, self.height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return image.resize(target, self.resample, box=(left, top, left + width, top + height))


class TextTransform:
    """Tokenise texts or text pairs; see `make_transform`."""

    def __init__(self, tokenizer: Callable[..., Mapping[str, torch.Tensor]], max_length: int) -> None:
        if max_length < 1:
            raise ConfigError(f"preprocessing max_length={max_length!r} must be positive")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, texts: Sequence[Any]) -> Tensors:
        return dict(self.tokenizer(list(texts), self.max_length))


class ImageTextTransform:
    """Pictures and texts, each through its own transform; see `make_transform`."""

    def __init__(self, image: Transform, text: Transform) -> None:
        self.image, self.text = image, text

    def __call__(self, examples: Sequence[tuple[Any, Any]]) -> Tensors:
        return {**self.image([picture for picture, _ in examples]), **self.text([text for _, text in examples])}


def _check_keys(preprocessing: Mapping[str, Any], known: Sequence[str], required: Sequence[str], modality: str) -> None:
    for key in preprocessing:
        if key not in known:
            raise ConfigError(f"{modality} preprocessing has no key {key!r}: {closest(key, known)}")
    missing = [key for key in required if key not in preprocessing]
    if missing:
        raise ConfigError(f"{modality} preprocessing lacks {', '.join(missing)}; it needs {', '.join(required)}")


__all__ = ["Tensors", "Transform", "make_transform"]
