"""The backbone of a configuration, of one tower or two, and how its data must be prepared."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.adapters.pair import PairAdapter, pair
from mdpd_plugins.tasks import AnyTask


def build_towers(config: Config, task: AnyTask, **changes: Any) -> Adapter:
    """The backbone with the task's outputs; with `text_backbone`, a pair of towers joined by the task's fusion.

    Args:
        changes: what replaces the configured `pretrained` of every tower, if given.

    Raises:
        UnknownBackboneError, ConfigError, CheckpointError, MissingDependencyError: see `build_backbone`.
    """
    if not config.text_backbone.name:
        return _tower(config, "backbone", task.num_outputs, changes)
    width = config.task.width
    image, text = (_tower(config, section, width, changes) for section in ("backbone", "text_backbone"))
    return pair(image, text, task.fusion(width))


def _tower(config: Config, section: str, outputs: int, changes: dict[str, Any]) -> Adapter:
    given = {"pretrained": config[section].pretrained, **changes}
    return build_backbone(config[section].name, num_classes=outputs, **given, **backbone_options(config, section))


def backbone_options(config: Config, section: str = "backbone") -> dict[str, Any]:
    """What a tower's `build` is given besides its weights and its number of outputs."""
    options: dict[str, Any] = config[section].to_dict()["options"]
    if section == "backbone" and config.data.input_size is not None:
        options.setdefault("image_size", config.data.input_size)
    return options


def prepared(adapter: Adapter, config: Config) -> dict[str, Any]:
    """The backbone's preprocessing with the configuration's sizes."""
    size = config.data.input_size
    if size is not None and adapter.modality != "text":
        (adapter.image if isinstance(adapter, PairAdapter) else adapter).input_size = (size, size)
    preprocessing = dict(adapter.preprocessing())
    text = preprocessing.get("text", preprocessing)
    if "max_length" in text:
        text["max_length"] = min(config.data.max_length, text["max_length"])
    return preprocessing


__all__ = ["backbone_options", "build_towers", "prepared"]
