"""Exports of small backbones with drawn weights, faster than a run and as `finish` leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from running import write_config
from small_zoo import BACKBONES, randomise

from mdpd_plugins.training import Experiment, build_experiment, load_config
from mdpd_plugins.training.announcing import described
from mdpd_plugins.training.finishing import evaluate, finish

_RESNET, _RESNET_OPTIONS = BACKBONES["mm-resnet"]
# Beside those of small_zoo.
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    # A bare encoder, with the output layer in a file beside it.
    "encoder": (
        "huggingface/clip_vision_model",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
        },
    ),
    # MMPretrain's RegNets and others read blue first; some entries do not say how to normalise.
    "mm-bgr": (
        _RESNET,
        {
            **_RESNET_OPTIONS,
            "data_preprocessor": {"mean": [103.53, 116.28, 123.675], "std": [57.0, 57.12, 58.4], "to_rgb": False},
        },
    ),
    "mm-plain": (_RESNET, {**_RESNET_OPTIONS, "data_preprocessor": {"to_rgb": False}}),
}


def export(folder: Path, key: str, /, seed: int = 0, **sections: Any) -> tuple[Experiment, dict[str, float]]:
    """Export a backbone of `small_zoo` or `FURTHER` to `folder`/export; its config is `folder`/config.py.

    Args:
        seed: of the drawn weights.

    Returns:
        The experiment with the exported weights, and the metrics of its backbone path.
    """
    name, options = {**BACKBONES, **FURTHER}[key]
    backbone = {"backbone": {"name": name, "pretrained": None, "options": options}}
    config = load_config(write_config(folder, "hf-vit", **{**backbone, **sections}))
    config.work_dir = str(folder)
    experiment = build_experiment(config)
    randomise(experiment.adapter.model, seed)
    summary = finish(experiment, evaluate(experiment), folder / "export", {}, described(config, experiment.parts), {})
    return experiment, of_the_backbone(summary)


def of_the_backbone(summary: dict[str, Any]) -> dict[str, float]:
    """The metrics of a summary that an export can have."""
    return {k.removeprefix("backbone/"): v for k, v in summary["metrics"].items() if k.startswith("backbone/")}


def table(path: Path, **options: Any) -> dict[str, Any]:
    """The data section for a table of texts."""
    return {"source": {"type": "table", "path": str(path), "text_column": "text", "label_column": "label", **options}}
