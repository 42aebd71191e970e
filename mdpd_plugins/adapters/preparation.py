"""Preparing inputs: the part of an adapter that makes tensors of pictures and texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from mdpd_plugins.adapters.transform import (
    RESIZE,
    EachPicture,
    ImageTextTransform,
    ImageTransform,
    PictureTransform,
    Size,
    TextTransform,
    Transform,
)
from mdpd_plugins.registry.errors import ConfigError, closest


class Preparation:
    """What `Adapter` knows of its inputs. A zoo's adapter overrides the methods that begin with an underscore."""

    model: Any
    name: str
    modality: str

    input_size: Size | None = None
    """(height, width) that pictures are prepared at; None for the checkpoint's own."""
    resize = "auto"
    """How pictures of another shape are fitted: "auto", as the zoo does it, or "stretch"."""
    max_length: int | None = None
    """Tokens that texts are cut to; None for the model's own limit, which holds in any case."""

    def prepare(self, *, input_size: Size | None = None, resize: str = "auto", max_length: int | None = None) -> None:
        """Choose how inputs are prepared, where that is not to be as the checkpoint's zoo does it.

        Args:
            input_size: (height, width) of prepared pictures: the same preparation, in proportion.
            resize: "auto", or "stretch" for the whole picture stretched to that size.
            max_length: tokens that texts are cut to, at most as many as the model takes.

        Raises:
            ConfigError: another word for `resize`, or anything but the defaults beside a transform of the user's own.
        """
        if resize not in RESIZE:
            raise ConfigError(f"resize={resize!r} does not exist: {closest(str(resize), RESIZE)}")
        if self.given_transform is not None and (resize != "auto" or input_size not in (None, self._given.size)):
            raise ConfigError(
                f"pictures of {self.name} are prepared by the transform that was given to adapt(): change that one, "
                f"and leave input_size and resize out"
            )
        self.input_size, self.resize, self.max_length = input_size, resize, max_length

    def transform(self, *, stretch: bool = False) -> Transform:
        """A function from a sequence of examples to inputs as the checkpoint wants them, by its zoo's own transform.

        Training, evaluation and exports that no zoo loads prepare their inputs with it.

        Args:
            stretch: stretch pictures to the model's size whatever `resize` says: for parts that were cut out of
                pictures at random, of which nothing more is to be cut.

        Returns:
            A function of `PIL.Image` (of any mode and size), of texts or pairs of texts, or of (`PIL.Image`, text).

        Raises:
            ConfigError, CheckpointError: the backbone has no tokenizer, or files that cannot be read.
        """
        if self.modality == "text":
            return self.text_transform()
        if self.modality == "image":
            return self.image_transform(stretch=stretch)
        return ImageTextTransform(self.image_transform(stretch=stretch), self.text_transform())

    def image_transform(self, *, stretch: bool = False) -> PictureTransform:
        """What makes {"image": (B, C, H, W)} of pictures; see `transform`."""
        if self.given_transform is not None:
            return self._given  # what it does is not to be seen in it, nor to be changed
        key = (self.input_size, stretch or self.resize == "stretch")
        if key not in self._image_transforms:  # some are found by trying
            self._image_transforms[key] = self._image_transform(*key)
        return self._image_transforms[key]

    @cached_property
    def _image_transforms(self) -> dict[tuple[Size | None, bool], PictureTransform]:
        return {}

    def text_transform(self) -> TextTransform:
        """What makes tokens of texts; its `max_length` is the model's own limit, or `max_length` if that is less."""
        found = self._text_transform()
        if self.max_length is not None:
            found.max_length = min(self.max_length, found.max_length)
        return found

    @property
    def image_size(self) -> Size:
        """(height, width) of prepared pictures."""
        return self.input_size or (self._own_size if self.given_transform is None else self._given.size)

    @property
    def _own_size(self) -> Size:
        """(height, width) of the pictures that the model was made for. What a zoo's adapter overrides."""
        found = (getattr(m, name, None) for m in self.model.modules() for name in ("image_size", "img_size"))
        size = next((s for s in found if isinstance(s, int | tuple | list)), 224)  # timm's patches keep it, say
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    given_transform: Callable[[Image.Image], torch.Tensor] | None = None
    """What a user gave to prepare one picture with, such as a torchvision transform; see `adapt`."""

    @cached_property
    def _given(self) -> EachPicture:
        assert self.given_transform is not None
        return EachPicture(self.given_transform)

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """What a zoo's adapter overrides: a transform by the zoo's own code.

        Args:
            size: (height, width) to prepare at; None for the checkpoint's own. stretch: see `transform`.
        """
        return ImageTransform(size or self._own_size)

    def _text_transform(self) -> TextTransform:
        """What a zoo's adapter overrides."""
        raise ConfigError(f"{self.name} has no tokenizer: give inputs that are tokens")


__all__ = ["Preparation"]
