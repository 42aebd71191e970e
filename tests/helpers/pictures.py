"""Pictures of shapes that divide by nothing, grey ones among them."""

from __future__ import annotations

import numpy as np
from PIL import Image

SHAPES = ((97, 61), (40, 75), (231, 57))


def odd_pictures() -> list[Image.Image]:
    """Noise in several shapes, wide and high; the last one is grey."""
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SHAPES]
    return [*drawn, drawn[0].convert("L")]
