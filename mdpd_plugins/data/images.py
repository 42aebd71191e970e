"""Reading images: whatever they are stored as, an 8-bit RGB picture comes out, or an error names the file."""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import numpy as np
from PIL import Image

from mdpd_plugins.adapters.pictures import to_rgb
from mdpd_plugins.registry import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
)
"""File name endings (lower case) that count as images in a folder."""
# PIL's decoders raise any of these on damaged files.
_DAMAGED = (OSError, ValueError, SyntaxError, TypeError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(raw: Any) -> Image.Image:
    """Read one image as 8-bit RGB, by the rules of `mdpd_plugins.adapters.pictures.to_rgb`.

    Args:
        raw: a path, a `PIL.Image`, an uint8 array (H, W), (H, W, 1) or (H, W, 3), or a mapping with "bytes"
            or "path" (as HuggingFace `datasets` stores images).

    Raises:
        DataError: the file is missing, does not decode or has values without a known meaning (it is named), or the
            array has another form.
    """
    try:
        return _read(raw)
    except _Fault as fault:
        raise DataError(f"image {image_name(raw)} {fault}; replace it or remove it from the data") from fault


def read_image_text(raw: tuple[Any, str]) -> tuple[Image.Image, str]:
    """Read the picture of a pair (picture, text), as `read_image` does."""
    return read_image(raw[0]), raw[1]


def image_fault(raw: Any) -> str | None:
    """What is wrong with an image, in words that go on after its name; None if `read_image` reads it, to the end."""
    try:
        _read(raw)
    except _Fault as fault:
        return str(fault)
    return None


def image_name(raw: Any) -> str:
    """What to call an image in a message: its path where there is one."""
    if isinstance(raw, dict):
        return str(raw.get("path") or "without a file name")
    if isinstance(raw, Image.Image):
        return str(getattr(raw, "filename", "") or "object")
    return str(raw)


class _Fault(Exception):
    """Why one image cannot be read; the text goes on after the image's name."""


def _read(raw: Any) -> Image.Image:
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    if isinstance(raw, dict):
        raw = io.BytesIO(raw["bytes"]) if raw.get("bytes") is not None else raw.get("path")
    if not isinstance(raw, (str, os.PathLike, io.BytesIO, Image.Image)):
        raise DataError(f"an image must be a path, a PIL image, an array or bytes, not {type(raw).__name__}")
    try:
        if isinstance(raw, Image.Image):
            return to_rgb(raw)
        with Image.open(raw) as image:
            return to_rgb(image)
    except DataError as error:
        raise _Fault(f"cannot be used: {error}") from error
    except FileNotFoundError as error:
        raise _Fault("does not exist") from error
    except _DAMAGED as error:
        raise _Fault(f"does not decode ({_in_short(error)})") from error


def _in_short(error: Exception) -> str:
    # PIL puts the file's name, or an object's address, into some of its messages.
    text = str(error)
    return "it is no image of a known format" if text.startswith("cannot identify image file") else text


def _from_array(array: np.ndarray) -> Image.Image:
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)):
        raise DataError(
            f"an image array must be uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not {array.dtype} {array.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
