"""Pictures and texts -> the tensors that a backbone takes.

A zoo's adapter wraps the zoo's own transform in `EachPicture` or a class of its own. `ImageTransform` is for backbones
whose library has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.adapters.pictures import to_rgb
from mdpd_plugins.registry.errors import ConfigError, closest

Tensors = dict[str, torch.Tensor]
Size = tuple[int, int]
"""(height, width) in pixels."""
Transform = Callable[[Sequence[Any]], Tensors]
"""A batch of examples -> inputs of the backbone."""

RESIZE = ("auto", "stretch")
"""How pictures of another shape are fitted: as the zoo does it, or stretched to the model's size."""

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FITS = ("stretch", "crop")
# Shapes that no rule but a fixed size makes equal: wide, high, and wider than most rules go.
_PROBES = ((97, 61), (53, 128), (301, 23))


class PictureTransform(Protocol):
    """What makes inputs of pictures."""

    size: Size
    """(height, width) of every prepared picture."""

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        """{"image": (B, C, height, width) float32} of `PIL.Image` of any mode and size."""


class ImageTransform:
    """Resize (antialiased, as PIL does it), scale to 0..1, normalise and stack.

    Args:
        size: (height, width), or one side.
        mean, std: three floats each, on the scale 0 to 1.
        interpolation: nearest, bilinear, bicubic or lanczos.
        fit: "stretch" (resize to `size` whatever the shape) or "crop" (keep the shape, cut the middle out).

    Raises:
        ConfigError: a value that is unknown or out of range.
    """

    def __init__(
        self,
        size: Sequence[int] | int,
        mean: Sequence[float] = (0.5,) * 3,
        std: Sequence[float] = (0.5,) * 3,
        interpolation: str = "bicubic",
        fit: str = "stretch",
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        if min(height, width) < 1:
            raise ConfigError(f"size={size!r} of prepared pictures: height and width must be positive")
        if interpolation not in _INTERPOLATIONS:
            raise ConfigError(
                f"interpolation {interpolation!r} does not exist: {closest(str(interpolation), _INTERPOLATIONS)}"
            )
        if fit not in _FITS:
            raise ConfigError(f"fit={fit!r} does not exist: {closest(str(fit), _FITS)}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(f"mean={mean!r} and std={std!r} must hold three values each, std above 0")
        self.size: Size = (height, width)
        self.resample = _INTERPOLATIONS[interpolation]
        self.fit = fit
        # Arrays and not tensors: those would have no numbers where a memory plan is made.
        self.mean, self.std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (mean, std))

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        pixels = torch.from_numpy(np.stack([np.asarray(self._resize(image)) for image in as_rgb(images)]))
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return {"image": batch.div_(255).sub_(torch.from_numpy(self.mean)).div_(torch.from_numpy(self.std))}

    def _resize(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size == (width, height):
            return image
        if self.fit == "stretch":
            return image.resize((width, height), self.resample)
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return image.resize((width, height), self.resample, box=box)


class EachPicture:
    """A library's transform of one picture, such as a torchvision `Compose`.

    Args:
        function: a `PIL.Image` in RGB -> tensor (C, height, width).
        size: (height, width) that it makes; found by trying where it is not given.

    Raises:
        ConfigError: pictures of different shapes leave it in different sizes, which no batch can hold.
    """

    def __init__(self, function: Callable[[Image.Image], torch.Tensor], size: Size | None = None) -> None:
        self.function = function
        found = size or fixed_size(lambda image: self.function(image).shape)
        if found is None:
            raise ConfigError(
                "the transform makes pictures of different sizes from pictures of different shapes, and a batch needs "
                "one size: add a resize to height and width, or a crop"
            )
        self.size: Size = found

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        return {"image": torch.stack([self.function(image) for image in as_rgb(images)]).float()}


class TextTransform:
    """Tokenise texts or text pairs.

    Args:
        tokenizer: (list of texts or of text pairs, max_length) -> tensors padded to the longest of the batch,
            `input_ids` and `attention_mask` (B, T) among them.
        max_length: tokens that texts are cut to.
    """

    def __init__(self, tokenizer: Callable[..., Any], max_length: int) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length={max_length!r} must be positive")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, texts: Sequence[Any]) -> Tensors:
        return dict(self.tokenizer(list(texts), self.max_length))


class ImageTextTransform:
    """Pictures and texts, (PIL.Image, str) each, both through their own transform."""

    def __init__(self, image: Transform, text: Transform) -> None:
        self.image, self.text = image, text

    def __call__(self, examples: Sequence[tuple[Any, Any]]) -> Tensors:
        return {**self.image([picture for picture, _ in examples]), **self.text([text for _, text in examples])}


def as_rgb(images: Sequence[Image.Image]) -> Iterator[Image.Image]:
    """The pictures as 8-bit RGB: libraries differ in what they make of grey ones, palettes and transparency."""
    return map(to_rgb, images)


def fixed_size(shape_of: Callable[[Image.Image], Sequence[int]]) -> Size | None:
    """The (height, width) that a transform makes of any picture; None if it depends on the picture.

    Args:
        shape_of: a `PIL.Image` in RGB -> shape that ends in height and width.
    """
    with real_tensors():
        sides = [tuple(shape_of(probe(size)))[-2:] for size in _PROBES]
    height, width = sides[0]
    return (int(height), int(width)) if len(set(sides)) == 1 else None


def probe(size: tuple[int, int]) -> Image.Image:
    """A picture of noise, (width, height), the same every time."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@contextmanager
def real_tensors() -> Iterator[None]:
    """Inside, tensors have numbers even where a memory plan is being made, in which new ones have none."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        yield


__all__ = [
    "RESIZE",
    "EachPicture",
    "ImageTextTransform",
    "ImageTransform",
    "PictureTransform",
    "Size",
    "Tensors",
    "TextTransform",
    "Transform",
    "as_rgb",
    "fixed_size",
    "probe",
    "real_tensors",
]
