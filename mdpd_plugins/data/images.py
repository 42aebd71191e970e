"""Reading images: whatever they are stored as, an 8-bit RGB picture comes out, or an error names the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mdpd_plugins.registry import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
)
"""File name endings (lower case) that count as images in a folder."""


def read_image(raw: Any) -> Image.Image:
    """Read one image as RGB, turned upright where the camera noted its orientation.

    Args:
        raw: a path, a `PIL.Image`, an uint8 array (H, W), (H, W, 1) or (H, W, 3), or a mapping with "bytes"
            or "path" (as HuggingFace `datasets` stores images).

    Raises:
        DataError: the file is missing or does not decode (it is named), or the array has another form.
    """
    if isinstance(raw, dict):
        name = str(raw.get("path") or "an image without a file name")
        raw = io.BytesIO(raw["bytes"]) if raw.get("bytes") is not None else raw.get("path")
        return _decode(raw, name)
    if isinstance(raw, (str, os.PathLike)):
        return _decode(raw, str(raw))
    if isinstance(raw, Image.Image):
        return _to_rgb(raw)
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    raise DataError(f"an image must be a path, a PIL image, an array or bytes, not {type(raw).__name__}")


def read_image_text(raw: tuple[Any, str]) -> tuple[Image.Image, str]:
    """Read the picture of a pair (picture, text), as `read_image` does."""
    return read_image(raw[0]), raw[1]


def check_images(paths: Iterable[Path]) -> None:
    """Read the header of every image, so that a file that is no image stops a run before it starts.

    Raises:
        DataError: names the first file that is missing or is no image.
    """
    for path in paths:
        try:
            with Image.open(path):
                pass
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _broken(str(path), error) from error


def _decode(file: Any, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    # PIL's decoders raise any of these on damaged files.
    except (OSError, ValueError, SyntaxError, TypeError, EOFError, Image.DecompressionBombError) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"image {name} does not exist; correct its path or remove its row")
    return DataError(f"image {name} does not decode ({error}); replace the file or remove it from the data")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL's own conversion clips 16 bits to 8 instead of scaling them
        values = np.asarray(image).astype(np.uint16)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)):
        raise DataError(
            f"an image array must be uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not {array.dtype} {array.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
