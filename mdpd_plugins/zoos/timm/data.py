"""Inputs of models that carry timm's data configuration: timm's own evaluation transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdpd_plugins.adapters.transform import EachPicture, Size


def data_config(model: Any) -> dict[str, Any]:
    """What timm's `resolve_model_data_config` says of a live model.

    A model made for another size than its weights (`img_size`) says so in its patch embedding alone.
    """
    from timm.data.config import resolve_model_data_config

    found = dict(resolve_model_data_config(model))
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return at_size(found, tuple(own)) if own else found


def at_size(config: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """The same configuration for pictures of another (height, width); the share that is cropped stays."""
    return {**config, "input_size": (config["input_size"][0], *size)}


class TimmPictures(EachPicture):
    """timm's evaluation transform.

    Args:
        config: its data configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from timm.data.transforms_factory import create_transform

        height, width = config["input_size"][1:]
        self.config = dict(config)
        super().__init__(create_transform(**config, is_training=False), (height, width))


def timm_transform(config: Mapping[str, Any], size: Size | None, stretch: bool) -> TimmPictures:
    """timm's evaluation transform of a data configuration.

    Args:
        size: (height, width) instead of the configuration's own.
        stretch: the whole picture, stretched, instead of a crop.
    """
    config = at_size(config, size) if size else dict(config)
    return TimmPictures({**config, "crop_pct": 1.0, "crop_mode": "squash"} if stretch else config)


__all__ = ["TimmPictures", "data_config", "timm_transform"]
