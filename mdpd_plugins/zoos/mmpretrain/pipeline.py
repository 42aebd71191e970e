"""Pictures as MMPretrain's test pipelines prepare them, in the zoo's own code."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mdpd_plugins.adapters.transform import Size, Tensors, as_rgb, fixed_size

Steps = list[dict[str, Any]]

SHARE = 0.875  # of the shorter side that a crop keeps, in most of the zoo
# Arguments of a step that are lengths in pixels.
_LENGTHS = ("scale", "crop_size", "crop_padding")


class PipelinePictures:
    """A test pipeline and a data preprocessor.

    Args:
        steps: configurations of the pipeline's steps; that which loads a file is left out.
        preprocessor: the model's `ClsDataPreprocessor`, of which a copy is kept.
        size: (height, width) of what comes out.
    """

    def __init__(self, steps: Steps, preprocessor: nn.Module, size: Size) -> None:
        self.pipeline = compose(steps)
        self.preprocessor = copy.deepcopy(preprocessor).cpu()
        self.size = size

    def __call__(self, images: Sequence[Image.Image]) -> Tensors:
        batch = torch.stack([self.pipeline(loaded(image))["inputs"] for image in as_rgb(images)])
        return {"image": self.preprocessor({"inputs": batch})["inputs"]}


def loaded(image: Image.Image) -> dict[str, Any]:
    """What the step that loads a file would leave: MMPretrain reads images as OpenCV does, blue first."""
    pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    return {"img": pixels, "img_shape": pixels.shape[:2], "ori_shape": pixels.shape[:2]}


def compose(steps: Steps) -> Any:
    """The pipeline of some steps without that which loads a file, as MMPretrain's inferencer makes it."""
    from mmcv.transforms import Compose
    from mmengine.registry import DefaultScope
    from mmpretrain.datasets import remove_transform
    from mmpretrain.registry import TRANSFORMS

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return Compose([TRANSFORMS.build(step) for step in remove_transform(copy.deepcopy(steps), "LoadImageFromFile")])


def read_steps(config: Any) -> Steps:
    """The test pipeline of a config, which its inferencer takes from the data loader; [] where it has none."""
    loader = (config or {}).get("test_dataloader") or {}
    steps = (loader.get("dataset") or {}).get("pipeline") or (config or {}).get("test_pipeline") or []
    return [dict(step) for step in steps]


def write_steps(config: Any, steps: Steps) -> None:
    """Make `steps` the test pipeline of a config, in both places."""
    config.test_pipeline = copy.deepcopy(steps)
    if not config.get("test_dataloader"):  # configs that only pretrain have none
        config.test_dataloader = {"dataset": {"type": "CustomDataset"}}
    config.test_dataloader.dataset.pipeline = copy.deepcopy(steps)


def usual_steps(size: Size) -> Steps:
    """The zoo's most usual pipeline, for what has none of its own: the shorter side resized, the middle cut out."""
    height, width = size
    return [
        dict(type="LoadImageFromFile"),
        dict(type="ResizeEdge", scale=round(max(size) / SHARE), edge="short"),
        dict(type="CenterCrop", crop_size=height if height == width else (width, height)),
        dict(type="PackInputs"),
    ]


def fitted(steps: Steps, size: Size | None, fallback: Size, stretch: bool = False) -> tuple[Steps, Size]:
    """A pipeline whose pictures all have one size, and that size.

    Args:
        size: (height, width) instead of the pipeline's own: all its lengths change in proportion.
        fallback: the size where the pipeline has none. Its pictures are then stretched to it: those of different sizes
            make no batch.
        stretch: the whole picture, stretched, instead of what the pipeline cuts out.
    """
    if not steps:
        steps = usual_steps(size or fallback)
    own = output_size(steps)
    if own is not None and not stretch:
        changed = at_size(steps, own, size) if size else steps
        if size is None or output_size(changed) == size:
            return changed, size or own
    wanted = size or own or fallback
    return stretched(steps, wanted), wanted


def output_size(steps: Steps) -> Size | None:
    """(height, width) of all that a pipeline makes, found by trying; None if it depends on the picture."""
    try:
        pipeline = compose(steps)
    except (AssertionError, TypeError):  # a step that takes no such lengths: EfficientNetCenterCrop cuts squares alone
        return None
    return fixed_size(lambda image: pipeline(loaded(image))["inputs"].shape)


def at_size(steps: Steps, own: Size, size: Size) -> Steps:
    """The steps for pictures of `size` instead of `own`, with all lengths in proportion."""
    height, width = (new / old for new, old in zip(size, own, strict=True))

    def scaled(value: Any) -> Any:
        if isinstance(value, (tuple, list)):  # MMCV writes the width first
            return tuple(round(v * f) for v, f in zip(value, (width, height), strict=True))
        if height == width or "edge" in step:
            return round(value * max(height, width))
        return round(value * width), round(value * height)

    changed = []
    for step in steps:
        step = dict(step)
        for name in _LENGTHS:
            if isinstance(value := step.get(name, _default(step["type"], name)), (int, tuple, list)):
                step[name] = scaled(value)
        changed.append(step)
    return changed


def stretched(steps: Steps, size: Size) -> Steps:
    """The steps with one resize to (height, width) in place of what resizes and cuts, by the same interpolation."""
    fitting = [step for step in steps if "scale" in step or "crop_size" in step]
    how = {
        name: value
        for name in ("interpolation", "backend")
        for step in fitting[:1]
        if (value := step.get(name, _default(step["type"], name)))
    }
    resize = dict(type="Resize", scale=(size[1], size[0]), **how)
    kept = [step for step in steps if step not in fitting]
    place = steps.index(fitting[0]) if fitting else max(0, len(kept) - 1)  # before the step that packs
    return [*kept[:place], resize, *kept[place:]]


def _default(kind: str, name: str) -> Any:
    from mmpretrain.registry import TRANSFORMS

    found = TRANSFORMS.get(kind)
    parameter = inspect.signature(found).parameters.get(name) if found else None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


__all__ = ["PipelinePictures", "fitted", "loaded", "read_steps", "usual_steps", "write_steps"]
