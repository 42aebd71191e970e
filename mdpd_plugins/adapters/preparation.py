"""The part of an adapter that knows its inputs: what the model takes, and tensors of pictures and texts for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from mdpd_plugins.adapters.transform import (
    RESIZE,
    EachPicture,
    ImageTextTransform,
    ImageTransform,
    PictureTransform,
    Size,
    Tensors,
    TextTransform,
    Transform,
)
from mdpd_plugins.registry.errors import ConfigError, closest


class Preparation:
    """What `Adapter` knows of its inputs. A zoo's adapter overrides the methods that begin with an underscore."""

    model: Any
    name: str
    modality: str

    if TYPE_CHECKING:  # what `Adapter` has

        @property
        def device(self) -> torch.device: ...

        def _run(self, inputs: Tensors) -> torch.Tensor: ...

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

    # --- what the model takes ----------------------------------------------------------------------------

    def as_inputs(self, given: Any, *, example: bool = False) -> Tensors:
        """Inputs in the form that `forward` takes, on the backbone's device.

        Args:
            given: a tensor (pictures, or tokens), a mapping of tensors, or what a HuggingFace tokenizer or image
                processor returns.
            example: whether they show what the model takes, so that pictures may be of any type.

        Raises:
            ConfigError: something else, or pictures that are whole numbers.
        """
        if isinstance(given, torch.Tensor):
            given = {"input_ids" if self.modality == "text" else "image": given}
        if not isinstance(given, Mapping) or not given or not all(isinstance(v, torch.Tensor) for v in given.values()):
            raise ConfigError(
                f"inputs of {self.name} are a tensor, a mapping of tensors, or what a tokenizer or image processor "
                f"returns with return_tensors='pt', and {type(given).__name__} was given; adapter.transform() makes "
                f"them from pictures or texts"
            )
        names = {"pixel_values": "image"}
        pictures = given.get("image", given.get("pixel_values"))
        known = None if self.given_example is None else self.given_example.get("image")
        whole = pictures is not None and not pictures.is_floating_point()
        if whole and not example and (known is None or known.is_floating_point()):
            raise ConfigError(
                f"pictures of {self.name} are numbers as its transform makes them, and {pictures.dtype} was given, the "
                f"levels of a file: prepare them with adapter.transform(), or scale and normalise them yourself"
            )
        return {names.get(str(key), str(key)): value.to(self.device) for key, value in given.items()}

    given_example: Tensors | None = None
    """Inputs that the model is known to take, of any number of samples; None where its own size says enough."""

    def example_inputs(self, batch: int = 2) -> Tensors:
        """Inputs of the model's own size, drawn from a fixed seed: for inspection and tests."""
        if self.given_example is not None:
            return {k: v[torch.arange(batch) % len(v)].to(self.device) for k, v in self.given_example.items()}
        return self._example_images(batch, self.image_size)

    def _example_images(self, batch: int, size: Size) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        image = torch.randn((batch, self.in_channels, *size), generator=generator)
        return {"image": image.to(self.device)}

    fixed_length = False
    """Whether texts always fill one number of tokens, padding included, so that none is shorter than another."""

    @property
    def in_channels(self) -> int:
        """Channels of an input image: what the first convolution reads."""
        first = next((m for m in self.model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or first.in_channels <= 4:
            return 3 if first is None else first.in_channels
        return 3 if self._takes_three_channels else first.in_channels

    @cached_property
    def _takes_three_channels(self) -> bool:
        # TResNet's first convolution reads 16 pixels of three colours at once.
        size = self.image_size
        try:
            with torch.no_grad():
                self._run({"image": torch.zeros((1, 3, *size), device=self.device)})
        except RuntimeError:  # a convolution given other channels than its own
            return False
        return True

    # --- what a zoo's adapter overrides ------------------------------------------------------------------

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
