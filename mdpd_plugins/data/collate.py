"""Examples of `LabelledDataset` -> a batch as the backbone's own preprocessing wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.data.source import Modality
from mdpd_plugins.registry import ConfigError, closest

Sample: TypeAlias = tuple[Any, torch.Tensor]
Batch: TypeAlias = dict[str, Any]

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_IMAGE_KEYS = ("size", "mean", "std", "interpolation", "fit")
_TEXT_KEYS = ("tokenizer", "max_length")
_FITS = ("stretch", "crop")


def make_collate(preprocessing: Mapping[str, Any], modality: str) -> Callable[[Sequence[Sample]], Batch]:
    """The collate function of a data loader.

    Args:
        preprocessing: for images `size` (H, W), `mean` and `std` (three floats on the scale 0 to 1),
            `interpolation` (nearest, bilinear, bicubic, lanczos), and optionally `fit`: "stretch" (the
            default: resize to `size` whatever the shape) or "crop" (keep the shape, cut the middle out). For
                text
            `tokenizer` (a list of texts or of text pairs, max_length -> tensors padded to the longest of the
            batch) and `max_length`. For "image-text" `image` and `text`, each a mapping as above.
        modality: "image", "text" or "image-text".

    Returns:
        A function from samples to `{"inputs": {...}, "labels": tensor}`. Inputs of images: `image`, float32
        (B, 3, H, W), normalised. Of text: what the tokenizer returns, `input_ids` and `attention_mask` (B, T)
        among it. Of "image-text": both together. Labels: int64 (B,), float32 (B, C) or float32 (B,).

    Raises:
        ConfigError: an unknown modality, or a preprocessing key that is missing, unknown or out of range.
    """
    if modality == "image":
        _check_keys(preprocessing, _IMAGE_KEYS, required=_IMAGE_KEYS[:4], modality=modality)
        return ImageCollate(**preprocessing)
    if modality == "text":
        _check_keys(preprocessing, _TEXT_KEYS, required=_TEXT_KEYS, modality=modality)
        return TextCollate(**preprocessing)
    if modality == "image-text":
        parts = ("image", "text")
        _check_keys(preprocessing, parts, required=parts, modality=modality)
        return ImageTextCollate(*(make_collate(preprocessing[part], part) for part in parts))
    raise ConfigError(f"modality {modality!r} does not exist: {closest(str(modality), get_args(Modality))}")


class ImageCollate:
    """Resize (antialiased, as PIL does it), scale to 0..1, normalise and stack; see `make_collate`."""

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

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        pixels = np.stack([np.asarray(self._resize(image)) for image, _ in samples])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        images = images.div_(255).sub_(self.mean).div_(self.std)
        return {"inputs": {"image": images}, "labels": _labels(samples)}

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


class TextCollate:
    """Tokenise the texts or text pairs of a batch; see `make_collate`."""

    def __init__(self, tokenizer: Callable[..., Mapping[str, torch.Tensor]], max_length: int) -> None:
        if max_length < 1:
            raise ConfigError(f"preprocessing max_length={max_length!r} must be positive")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        tokens = self.tokenizer([text for text, _ in samples], self.max_length)
        return {"inputs": dict(tokens), "labels": _labels(samples)}


class ImageTextCollate:
    """Pictures and texts of a batch, each through its own collate function; see `make_collate`."""

    def __init__(self, image: Callable[..., Batch], text: Callable[..., Batch]) -> None:
        self.parts = (image, text)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        inputs: dict[str, Any] = {}
        for place, collate in enumerate(self.parts):
            inputs |= collate([(both[place], label) for both, label in samples])["inputs"]
        return {"inputs": inputs, "labels": _labels(samples)}


def _labels(samples: Sequence[Sample]) -> torch.Tensor:
    return torch.stack([label for _, label in samples])


def _check_keys(preprocessing: Mapping[str, Any], known: Sequence[str], required: Sequence[str], modality: str) -> None:
    for key in preprocessing:
        if key not in known:
            raise ConfigError(f"{modality} preprocessing has no key {key!r}: {closest(key, known)}")
    missing = [key for key in required if key not in preprocessing]
    if missing:
        raise ConfigError(f"{modality} preprocessing lacks {', '.join(missing)}; it needs {', '.join(required)}")
