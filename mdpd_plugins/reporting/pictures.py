"""Pixels as data URIs, so that a page needs no file beside it."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image

THUMBNAIL = 112  # pixels of the longer side
MAP_SIDE = 96  # tokens of a map's side; a longer one is averaged down


def thumbnail(image: Image.Image) -> str:
    """A small copy of an image, which is left as it is."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return _uri(small)


def heat_map(weights: torch.Tensor) -> str:
    """An attention map (T, T) with rows summing to 1, as colours; T above MAP_SIDE is averaged down.

    Colours go with the square root of a weight over the map's largest (our choice: a softmax over many tokens is
    close to zero almost everywhere, and the eye would see nothing but the peaks), but at least over four times what a
    uniform map has, which is then half bright everywhere.
    """
    side = min(MAP_SIDE, len(weights))
    shrunk = F.adaptive_avg_pool2d(weights[None, None].float(), side)[0, 0]
    scaled = (shrunk / shrunk.max().clamp(min=4 / len(weights))).sqrt().numpy()
    pixels = (colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)
    return _uri(Image.fromarray(pixels))


def _uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


__all__ = ["heat_map", "thumbnail"]
