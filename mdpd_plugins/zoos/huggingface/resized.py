"""A pretrained transformers model for pictures of another size than its checkpoint's.

The plain model must take the new size: an export is called without flags, by whoever loads it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.zoos.huggingface.adapter import arguments

MOST_PREFIX = 8  # class, distillation and register tokens, or BEiT's three biases, that lie beside a grid


def at_size(auto: Any, model: Any, size: int, name: str) -> nn.Module:
    """The model itself where it takes pictures of that size as it is; else one with its positions resized.

    Position embeddings, and tables of biases by relative position, are interpolated as transformers does it in its
    models' `interpolate_pos_encoding`: on their grid, bicubic, and bilinear for relative positions.

    Args:
        auto: transformers' Auto class of the model. size: side of the pictures, in pixels.

    Raises:
        ConfigError: it takes none of that size, also with new positions.
    """
    taken = arguments(model)
    if "pixel_values" not in taken or taken & {"spatial_shapes", "input_ids"}:
        return model  # patches or pixels that come as a sequence, or pictures of any size beside words
    if (reason := _refusal(model, size)) is None:
        return model
    config = copy.deepcopy(model.config)
    vision = getattr(config, "vision_config", None) or config
    old = getattr(vision, "image_size", None)
    error = ConfigError(
        f"{name} was pretrained on pictures of {_said(old)} and takes none of {_said(size)} ({reason}): leave "
        f"data.input_size, or backbone.options.image_size, out"
    )
    if old is None:
        raise error
    own = old if isinstance(old, int) else old[0]
    _set_size(vision, size)
    if vision is not config and hasattr(config, "image_size"):
        _set_size(config, size)
    try:
        resized = auto.from_config(config, dtype=model.dtype).eval()
        resized.load_state_dict(_fitted(resized, model.state_dict(), own, size))
    except (ValueError, RuntimeError, ZeroDivisionError) as problem:
        raise error from problem
    if _refusal(resized, size) is not None:
        raise error
    return resized


def with_image_size(config: Any, options: dict[str, Any], size: int) -> dict[str, Any]:
    """`options` of a configuration with the size of its pictures, where it has one, for a model without weights."""
    if getattr(config, "vision_config", None) is not None:
        inner = with_image_size(config.vision_config, options.get("vision_config", {}), size)
        return {**options, "vision_config": inner}
    if not isinstance(own := getattr(config, "image_size", None), (int, list, tuple)):
        return options
    return {**options, "image_size": _like(own, size)}


def square(size: int | Sequence[int] | None) -> int | None:
    """The side of square pictures, of a size as configurations have it.

    Raises:
        ConfigError: it is not square.
    """
    if size is None or isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ConfigError(f"backbone.options.image_size={list(size)}: pictures are square here, give one side")
    return size[0]


def _like(own: Any, size: int) -> Any:
    """A side of square pictures, in the form in which a configuration has its own."""
    return size if isinstance(own, int) else [size] * len(own)


def _said(size: Any) -> str:
    return "any size" if size is None else f"{size} x {size}" if isinstance(size, int) else " x ".join(map(str, size))


def _set_size(config: Any, size: int) -> None:
    config.image_size = _like(config.image_size, size)


def _refusal(model: Any, size: int) -> str | None:
    """What the plain model says of a picture of that size, if it does not take it."""
    channels = getattr(getattr(model.config, "vision_config", None) or model.config, "num_channels", 3)
    try:
        with torch.no_grad():
            shape = (1, channels if isinstance(channels, int) else 3, size, size)
            model(pixel_values=torch.zeros(shape, dtype=model.dtype))
    except Exception as error:  # each model says it in its own way
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _fitted(resized: nn.Module, state: dict[str, torch.Tensor], old: int, new: int) -> dict[str, torch.Tensor]:
    """The weights of `state`, with those whose shape differs brought to the shape that `resized` has.

    Raises:
        ValueError: one of them is no table of positions.
    """
    learned = {name for name, _ in resized.named_parameters()}
    found = {}
    for key, value in resized.state_dict().items():
        if key not in state or (state[key].shape != value.shape and key not in learned):
            found[key] = value  # numbers of positions, and what is worked out from the size
        elif state[key].shape == value.shape:
            found[key] = state[key]
        else:
            found[key] = _interpolated(key, state[key], value.shape, old, new)
    return found


def _interpolated(key: str, table: torch.Tensor, shape: torch.Size, old: int, new: int) -> torch.Tensor:
    differing = [i for i, (a, b) in enumerate(zip(table.shape, shape, strict=True)) if a != b]
    if len(differing) != 1 or differing[0] != table.dim() - 2 or math.prod(table.shape[:-2]) != 1:
        raise ValueError(f"{key} of shape {tuple(table.shape)} is no table of positions")
    rows, wanted = table.shape[-2], shape[-2]
    for beside in range(MOST_PREFIX + 1):
        sides = math.isqrt(max(rows - beside, 0)), math.isqrt(max(wanted - beside, 0))
        if sides[0] == 0 or [s * s for s in sides] != [rows - beside, wanted - beside]:
            continue
        if abs(sides[0] * new / old - sides[1]) < 1:
            return _resized(table, sides, beside, first=True, mode="bicubic").view(shape)
        if abs((sides[0] + 1) * new / old - (sides[1] + 1)) < 2:  # 2 h - 1 distances between h positions
            return _resized(table, sides, beside, first=False, mode="bilinear").view(shape)
    raise ValueError(f"{key} with {rows} rows lies on no square grid that would have {wanted} rows at the new size")


def _resized(table: torch.Tensor, sides: tuple[int, int], beside: int, *, first: bool, mode: str) -> torch.Tensor:
    """The rows on the grid interpolated; those beside it, before or behind it, as they are."""
    rows = table.reshape(-1, table.shape[-1])
    count = sides[0] ** 2
    grid = rows[beside:] if first else rows[:count]
    grid = grid.T.reshape(1, -1, sides[0], sides[0])
    grid = F.interpolate(grid.float(), size=(sides[1], sides[1]), mode=mode, align_corners=False).to(rows.dtype)
    kept = rows[:beside] if first else rows[count:]
    grid = grid.flatten(2)[0].T
    return torch.cat([kept, grid] if first else [grid, kept])


__all__ = ["at_size", "square", "with_image_size"]
