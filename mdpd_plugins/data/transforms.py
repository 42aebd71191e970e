"""Augmentation of training images, with or without a text beside them.

Sizing and normalising are not here: the collate function does them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, closest

Transform: TypeAlias = Callable[[Any, np.random.Generator], Any]
"""(input, generator) -> input of the same kind. Every random choice comes from the generator."""

RAND = "+randaugment"
AUGMENTS = ("auto", "none", "crop", "crop+flip", f"crop{RAND}", f"crop+flip{RAND}")


def make_transform(source: Source, augment: str = "auto") -> Transform | None:
    """The augmentation of a data set's training examples.

    Args:
        source: the training data.
        augment: "none"; "crop" (a random part of 60 to 100 % of the area, its sides' ratio changed by up to
            4/3); "crop+flip" (and half of the pictures mirrored); with "+randaugment", then `RandAugment`; "auto":
            see `chosen_augment`.

    Returns:
        A transform, or None where there is nothing to do.

    Raises:
        ConfigError: an unknown name, or image augmentation for texts.
    """
    chosen = chosen_augment(source, augment)
    if chosen == "none":
        return None
    if source.modality == "text":
        raise ConfigError(f"augment={augment!r} is for images, and this data holds texts; set augment='none'")
    crop: Transform = RandomCrop(flip="flip" in chosen)
    if chosen.endswith(RAND):
        crop = RandAugment(crop)
    return PictureOf(crop) if source.modality == "image-text" else crop


def chosen_augment(source: Source, augment: str = "auto") -> str:
    """What `augment` comes to for a source: one of `AUGMENTS` but "auto".

    "auto" is a crop, or nothing where the source says that even a crop is not safe: digits, texts, and pictures with a
    text, which may speak of left and right or of what a crop cuts off. It never mirrors: nothing in a folder of
    pictures says that they hold no writing, no digits and no left hands. Flips are for who knows that.

    Raises:
        ConfigError: an unknown name.
    """
    if augment not in AUGMENTS:
        raise ConfigError(f"augment={augment!r} does not exist: {closest(augment, AUGMENTS)}")
    if augment != "auto":
        return augment
    return "none" if source.augment == "none" else "crop"


def augment_line(source: Source, augment: str = "auto") -> str:
    """`chosen_augment` as a line for the log: what is done, who chose it, and how to choose otherwise."""
    chosen = chosen_augment(source, augment)
    if augment != "auto":
        return f"augmentation: {chosen}, as data.augment says"
    if chosen == "none":
        return "augmentation: none, the data's default"
    return f"augmentation: {chosen}, the default; where mirrored pictures mean the same, data.augment='crop+flip'"


class PictureOf:
    """Change the picture of an example (picture, text), and leave its text."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, item: tuple[Image.Image, str], generator: np.random.Generator) -> tuple[Image.Image, str]:
        return self.transform(item[0], generator), item[1]


class RandomCrop:
    """Cut a random part out of a picture, and perhaps mirror it.

    The part keeps the picture's own resolution; together with the resizing that follows in the collate
    function this is the usual random resized crop, resampled once.

    Args:
        flip: mirror half of the pictures.
        scale: smallest and largest share of the area.
        ratio: smallest and largest change of the ratio of the sides.
    """

    def __init__(
        self,
        flip: bool = False,
        scale: tuple[float, float] = (0.6, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        self.flip = flip
        self.scale = scale
        self.ratio = ratio

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> Image.Image:
        width, height = image.size
        area = generator.uniform(*self.scale)
        aspect = math.exp(generator.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        crop_w = min(width, max(1, round(width * math.sqrt(area * aspect))))
        crop_h = min(height, max(1, round(height * math.sqrt(area / aspect))))
        left = int(generator.integers(0, width - crop_w + 1))
        top = int(generator.integers(0, height - crop_h + 1))
        mirrored = generator.random() < 0.5  # drawn also without flip: crops do not depend on that option
        image = image.crop((left, top, left + crop_w, top + crop_h))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip and mirrored else image


class RandAugment:
    """torchvision's RandAugment (arXiv:1909.13719), behind another transform.

    Two of fourteen changes of colour and shape to each picture, at magnitude 9 of 30: torchvision's defaults.

    Args:
        before: what comes first.
    """

    def __init__(self, before: Transform) -> None:
        from torchvision.transforms import RandAugment as change  # when it is asked for: it takes a while

        self.before = before
        self._change = change()

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> Image.Image:
        image = self.before(image, generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator.integers(2**63)))  # torchvision draws from the global generator
            return self._change(image)
