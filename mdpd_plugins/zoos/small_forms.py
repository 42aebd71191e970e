"""Cutting plain configuration data down, and finding the smallest form that runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.registry.errors import ConfigError, MissingDependencyError

# Above this, checks with a few copies of the model would pass 2 GB or take minutes on one core.
MAX_PARAMETERS = 60_000_000
# Where no form is below that (VGG's output layers alone have 120 million): checks then take about 3 GB.
LARGEST = 150_000_000

DEPTH = re.compile(r"(^|_)(n_layers?|layers?|depths?|num_blocks|stage_blocks|num_layers_per_block)$")
WIDTH = re.compile(
    r"(size|sizes|dim|dims|width|channels?|rank|embd|d_model|d_latents|d_ff|d_kv|d_inner|ffn|filters|head_width|features)$"
)
# Sizes that are not widths.
OTHER = re.compile(
    r"image|img|patch|vocab|kernel|window|pool|chunk|stride|block_size|max_|position|num_channels|conv_dim"
    r"|type_|context|bin_size|group_size|memory|hash|bucket|axial|sampling|label|scal|codebook|fingerprint"
)


def cut(fields: dict[str, Any], depth: int | None, factor: int) -> dict[str, Any]:
    """What changes when depths are cut to `depth` (None: not) and widths are divided by `factor`.

    All widths are divided alike, so that those that must divide or equal each other still do.
    """
    changes = {}
    for key, value in fields.items():
        if not isinstance(key, str):
            continue  # a map from layers, such as RepVGG's of groups
        if isinstance(value, dict):
            if inner := cut(value, depth, factor):
                changes[key] = {**value, **inner}
        elif depth is not None and DEPTH.search(key):
            changes[key] = _each(value, lambda v: min(v, depth))
        elif depth is not None and key == "depth_coefficient":
            changes[key] = min(value, 1.0)  # EfficientNet's multiplier of all depths
        elif factor > 1 and WIDTH.search(key) and not OTHER.search(key):
            changes[key] = _each(value, lambda v: v // factor if v % factor == 0 and v >= 2 * factor else v)
    return {k: v for k, v in changes.items() if v != fields[k]}


def _each(value: Any, change: Callable[[int], int]) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_each(v, change) for v in value)
    return value


def first_working(name: str, candidates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The first of several `build` options with which the backbone builds, is small and answers.

    Where none is small, the smallest of those up to `LARGEST`.

    Raises:
        what the first candidate raised; ConfigError if each was too large.
    """
    problem: Exception | None = None  # the first: later forms often fail for being too small or too large
    tried: list[dict[str, Any]] = []
    large: list[dict[str, Any]] = []  # without their image size, which weighs little
    smallest: tuple[int, dict[str, Any]] | None = None
    for options in candidates:
        apart = {k: v for k, v in options.items() if k != "image_size"}
        if options in tried or (smallest and apart in large):
            continue
        tried.append(options)
        try:
            adapter = build_backbone(name, pretrained=None, num_classes=5, **options)
            size = sum(p.numel() for p in adapter.model.parameters())
            if size > MAX_PARAMETERS:
                large.append(apart)
                problem = problem or ConfigError(f"the smallest form of {name} has {size / 1e6:.0f} M parameters")
            if size > LARGEST or (smallest and size >= max(MAX_PARAMETERS, smallest[0])):
                continue
            with torch.no_grad():
                logits = adapter.forward(adapter.example_inputs())
            if not torch.isfinite(logits).all():
                raise ConfigError(f"{name} with {options} gives outputs that are not finite")
            if size <= MAX_PARAMETERS:
                return options
            smallest = size, options
        except MissingDependencyError:
            raise
        except Exception as error:  # a form that contradicts itself fails in any way it likes
            problem = problem or error
    if smallest:
        return smallest[1]
    raise problem or ConfigError(f"no form of {name} is below {MAX_PARAMETERS / 1e6:.0f} M parameters")


__all__ = ["MAX_PARAMETERS", "cut", "first_working"]
