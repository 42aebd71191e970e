"""timm's classifiers: building them. Their adapter is the one that live models of timm get."""

from __future__ import annotations

from typing import Any

import timm

from mdpd_plugins.adapters import RANDOM, Built
from mdpd_plugins.registry import CheckpointError

SMALL: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {"img_size": 64, "embed_dim": 48, "depth": 3},
    "deit3_small_patch16_224": {"img_size": 64, "embed_dim": 48, "depth": 3},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (2, 2, 2, 3)},
    "convnext_tiny": {"dims": (12, 24, 48, 96), "depths": (2, 2, 3, 3)},
    "resnet50": {"layers": (1, 1, 1, 1)},
    "regnetx_008": {},
}


def build(*, name: str, pretrained: str | None = "auto", num_classes: int, **options: Any) -> Built:
    """A timm classifier.

    Args:
        pretrained: "auto" (timm's weights, random if they are not available), a file that timm can load, or None.
        options: arguments of `timm.create_model`.
    """
    model_name = name.partition("/")[2]
    if pretrained not in (None, "auto"):
        try:
            model = timm.create_model(model_name, num_classes=num_classes, checkpoint_path=pretrained, **options)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{pretrained!r} cannot be loaded into {name}: {error}") from error
        return Built(model, origin=f"file {pretrained}")
    if pretrained == "auto":
        try:
            model = timm.create_model(model_name, pretrained=True, num_classes=num_classes, **options)
        except (OSError, RuntimeError):
            pass  # no network: said below
        else:
            return Built(model, origin=f"timm, {model.pretrained_cfg.get('hf_hub_id') or model_name}")
    model = timm.create_model(model_name, num_classes=num_classes, **options)
    asked = "asked for" if pretrained is None else "timm's weights cannot be reached"
    return Built(model, origin=f"{RANDOM} ({asked})")


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options for `mdpd verify`."""
    return {"": SMALL[name.partition("/")[2]]}
