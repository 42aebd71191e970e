"""Small pairs of towers, and the tasks that train them."""

from __future__ import annotations

from typing import Any

from small_zoo import BACKBONES, CLASSES, randomise, small

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.towers.pair import PairAdapter, pair
from mdpd_plugins.tasks import AnyTask, Prediction, Retrieval
from mdpd_plugins.zoos.open_clip.pair import OpenCLIPPairAdapter

WIDTH = 16
ANSWERS, MATCHES = Prediction("single", CLASSES), Retrieval(WIDTH)
TASKS: dict[str, AnyTask] = {"answers": ANSWERS, "matches": MATCHES}
# Two zoos, a tower without attention, an OpenCLIP tower on either side, and one zoo twice.
PAIRS = (("mm-vit", "hf-minilm"), ("mm-resnet", "oc-text"), ("hf-vit", "oc-text"), ("oc-image", "hf-minilm"))


def small_pair(
    image: str = "mm-vit", text: str = "hf-minilm", task: AnyTask = ANSWERS, **options: dict[str, Any]
) -> PairAdapter:
    """Two backbones of `small_zoo` under a fusion, every weight drawn.

    Args:
        options: {"image": ..., "text": ...}, of the towers' builds.
    """
    keys = {"image": image, "text": text}
    towers = [small(key, num_classes=WIDTH, seed=i, **options.get(t, {})) for i, (t, key) in enumerate(keys.items())]
    fusion = task.fusion(WIDTH)
    randomise(fusion, seed=2)
    return pair(*towers, fusion)


def open_clip_pair() -> OpenCLIPPairAdapter:
    """Both towers of one small OpenCLIP model."""
    name, options = BACKBONES["oc-image"]
    adapter = build_backbone(name, pretrained=None, num_classes=1, **{**options, "tower": "both"})
    randomise(adapter.model)
    assert isinstance(adapter, OpenCLIPPairAdapter)
    return adapter
