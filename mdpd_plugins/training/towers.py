"""The backbone of a configuration, of one tower or two, and how its inputs are prepared."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.adapters.towers.pair import PairAdapter, pair
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import AnyTask, Retrieval


def build_towers(config: Config, task: AnyTask, **changes: Any) -> Adapter:
    """The backbone with the task's outputs; with `text_backbone`, a pair of towers joined by the task's fusion.

    Args:
        changes: what replaces the configured `pretrained` of every tower, if given.

    Raises:
        UnknownBackboneError, ConfigError, CheckpointError, MissingDependencyError: see `build_backbone`.
        ConfigError: a tower of the wrong modality, or what does not go with the task.
    """
    if not config.text_backbone.name:
        adapter = _tower(config, "backbone", task.num_outputs, changes)
        _check_task(adapter, task)
        return adapter
    width, towers = config.task.width, []
    for section, modality in (("backbone", "image"), ("text_backbone", "text")):
        tower = _tower(config, section, width, changes)
        if tower.modality != modality:
            raise ConfigError(
                f"{section}.name={tower.name!r} reads {tower.modality}s, but beside "
                f"{'text_' * (modality == 'image')}backbone.name it is to read {modality}s: choose another (mdpd "
                f"list-backbones --modality {modality})"
            )
        towers.append(tower)
    image, text = towers
    return pair(image, text, task.fusion(width))


def _check_task(adapter: Adapter, task: AnyTask) -> None:
    both, compares = isinstance(adapter, PairAdapter), task.kind == Retrieval.kind
    if both and not compares:
        raise ConfigError(
            f"{adapter.name} was built with backbone.options.tower='both', which is for retrieval, but the data has "
            f"{task.kind!r} labels: build one tower and name a text tower besides with text_backbone.name, or "
            f"set data.source.label_kind='pair'"
        )
    if compares and not both:
        raise ConfigError(
            f"retrieval compares what two towers make of pictures and texts, and {adapter.name} is one: name a text "
            f"tower besides with text_backbone.name, or both of an OpenCLIP model with backbone.options.tower='both'"
        )


def _tower(config: Config, section: str, outputs: int, changes: dict[str, Any]) -> Adapter:
    given = {**{key: config[section][key] for key in ("pretrained", "dtype", "quantization")}, **changes}
    options = backbone_options(config, section)
    for key in ("dtype", "quantization"):
        if key in options:
            raise ConfigError(f"{section}.options.{key}: how weights are held is chosen with {section}.{key}")
    return build_backbone(config[section].name, num_classes=outputs, **given, **options)


def backbone_options(config: Config, section: str = "backbone") -> dict[str, Any]:
    """What a tower's `build` is given besides its weights and its number of outputs."""
    options: dict[str, Any] = config[section].to_dict()["options"]
    if section == "backbone" and config.data.input_size is not None:
        options.setdefault("image_size", config.data.input_size)
    return options


def prepare(adapter: Adapter, config: Config) -> None:
    """Let inputs be prepared as the configuration says."""
    size = config.data.input_size
    adapter.prepare(
        input_size=None if size is None else (size, size),
        resize=config.data.resize,
        max_length=config.data.max_length,
    )


__all__ = ["backbone_options", "build_towers", "prepare"]
