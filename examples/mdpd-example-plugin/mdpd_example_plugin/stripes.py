"""A type of data of our own: pictures of stripes, drawn when they are read. The label is the stripes' direction."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mdpd_plugins.data import Source
from mdpd_plugins.registry import ConfigError

DIRECTIONS = {"flat": (0.0, 1.0), "upright": (1.0, 0.0), "slanted": (0.7, 0.7)}


def open_stripes(*, count: int, size: int = 32, noise: float = 0.3, seed: int = 0) -> dict[str, Source]:
    """`count` pictures in equal numbers of each direction; parameters are the keys of `data.source`.

    Args:
        count: how many. It has no default, so a configuration must say it.
        size: side in pixels. noise: standard deviation of the noise; stripes go from -1 to 1. seed: of the drawing.

    Returns:
        {"train": source}, from which validation and test are cut.
    """
    if count < len(DIRECTIONS):
        raise ConfigError(f"count={count}: stripes need at least one picture of each of {len(DIRECTIONS)} directions")
    labels = [i % len(DIRECTIONS) for i in range(count)]
    recipes = [(label, size, noise, seed * 1_000_003 + i) for i, label in enumerate(labels)]
    about = f"{count} pictures of stripes, {size}x{size}, drawn by mdpd-example-plugin. Nobody's property."
    # A mirrored slant is no slant of ours, so no augmentation is safe unless it is asked for.
    return {"train": Source(recipes, labels, tuple(DIRECTIONS), "image", about, read=draw, augment="none")}


def draw(recipe: tuple[int, int, float, int]) -> Image.Image:
    """One picture, the same every time."""
    label, size, noise, seed = recipe
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    along_x, along_y = list(DIRECTIONS.values())[label]
    period, phase = generator.uniform(4, 8), generator.uniform(0, 2 * np.pi)
    waves = np.sin(2 * np.pi * (along_x * x + along_y * y) / period + phase)
    colour = generator.uniform(0.3, 1.0, size=3)
    picture = (waves + noise * generator.standard_normal((size, size)))[:, :, None] * colour
    return Image.fromarray(np.clip(127.5 + 100 * picture, 0, 255).astype(np.uint8))
