"""MMPretrain: building its image classifiers from names or configs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import RANDOM, Built
from mdpd_plugins.adapters.storage.checkpoint import load_weights, read_state_dict
from mdpd_plugins.adapters.storage.precision import stored_type
from mdpd_plugins.adapters.storage.weights import download
from mdpd_plugins.registry.errors import ConfigError, closest
from mdpd_plugins.zoos.mmpretrain.adapter import (
    CHECKPOINT_FILE,
    MMPretrainAdapter,
    import_mmpretrain,
    quietly,
)
from mdpd_plugins.zoos.mmpretrain.entries import Entry, encoder_state, fit, parameters, read_entry
from mdpd_plugins.zoos.mmpretrain.pipeline import fitted, read_steps, write_steps


def build(
    *,
    name: str,
    pretrained: str | None = "auto",
    num_classes: int,
    image_size: int | None = None,
    backbone: dict[str, Any] | None = None,
    **options: Any,
) -> Built:
    """An MMPretrain image classifier with `num_classes` outputs.

    Args:
        name: `mmpretrain/<name in the model zoo>`.
        pretrained: "auto" (torch hub's cache, then the model zoo; random if neither), a checkpoint, or None.
        num_classes: outputs of the head.
        image_size: input side in pixels; the zoo's position embeddings are resized on loading.
        backbone: overrides of the config's backbone, such as `dict(arch="deit-tiny")`.
        options: overrides of other parts of the config's model (`head`, `neck`, ...).

    Raises:
        ConfigError: an override the zoo does not take.
        CheckpointError: an explicit checkpoint that is missing, unsafe or of another architecture.
    """
    import_mmpretrain()
    entry = read_entry(name.partition("/")[2])
    known = ("backbone", "neck", "head", "train_cfg", "data_preprocessor")
    for key in options:
        if key not in known:
            raise ConfigError(f"{name} has no option {key!r}: {closest(key, known)}")
    changes = {"backbone": dict(backbone or {}), "head": {}, **options}
    given = dict(changes["backbone"])
    if image_size is not None and _takes("img_size", entry.config, changes, "backbone"):
        changes["backbone"]["img_size"] = image_size
    # VGG and Inception carry their output layer in the backbone, under a head that has none.
    classifier = "head" if _takes("num_classes", entry.config, changes, "head") else "backbone"
    changes[classifier] = {**changes[classifier], "num_classes": num_classes}
    config = entry.config
    if image_size is not None:
        size = (image_size, image_size)
        write_steps(config, fitted(read_steps(config), size, size)[0])
    for part, values in changes.items():
        if isinstance(values, dict) and isinstance(config.model.get(part), dict):
            config.model[part].update(values)  # one level deep: a given `arch` replaces the zoo's
        else:
            config.model[part] = values
    # Batch augmentations of the zoo's training recipe play no part here.
    config.model.pop("train_cfg", None)
    config.model.backbone.pop("init_cfg", None)  # a checkpoint file of the recipe; weights are loaded below
    if "frozen_stages" not in given:
        # Backbones of linear probes freeze themselves again in every `train()` and `eval()`.
        config.model.backbone.pop("frozen_stages", None)
    try:
        model = _model(config, fitted=bool(given) or entry.bare)
    except (TypeError, AssertionError, KeyError) as error:
        raise ConfigError(f"{name} cannot be built with {changes}: {error}") from error
    model.eval()
    path, origin = _find(entry, pretrained)
    if path is None:
        return Built(model, origin=origin, settings=config)
    state = _without_averages(read_state_dict(path))
    # A path may be an export of ours, which is a classifier.
    if entry.bare and not all(k in state for k in model.state_dict() if k.startswith("head.")):
        state = encoder_state(model, state, f"{str(path)!r}")

    def finish(adapter: MMPretrainAdapter) -> None:
        load_weights(model, _converted(model, state), adapter.head_parameters(), f"{str(path)!r}")

    return Built(model, origin=origin, settings=config, finish=finish, stored=stored_type(state.values()))


def _model(config, *, fitted: bool) -> nn.Module:
    """The classifier of a config, with fresh weights; the config follows where neck and head had to be fitted."""
    from mmengine.registry import DefaultScope
    from mmpretrain import get_model

    head = config.model.get("head")
    later = copy.deepcopy(config)
    if fitted and head and head.get("in_channels") is None:
        later.model.head = None  # its width is not known before the backbone is there
    # After a run in this process, mmengine would look for the model's parts among its own.
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = get_model(later, pretrained=False)
        if fitted:
            fit(model, config)
    model._config = config  # as mmpretrain.get_model leaves it, for what reads it there
    quietly(model.init_weights)
    return model


def _takes(argument: str, config, changes: dict[str, Any], part: str) -> bool:
    # Convolutional backbones, for example, take images of any size and have no argument for it.
    from mmpretrain.registry import MODELS

    given = (config.model.get(part) or {}).get("type")
    return argument in parameters(MODELS.get(changes[part].get("type", given)))


def _converted(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # The zoo's own pre-hooks (older key names, resized position embeddings) edit the mapping in place.
    state = dict(state)
    for prefix, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            hook(state, f"{prefix}." if prefix else "", {}, True, [], [], [])
    return state


def _without_averages(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without what mmcv's EMAHook kept beside each weight while it trained, `ema_` and the weight's name.

    It had put the averages in the place of the weights before it saved, so nothing is lost.
    """
    kept = {f"ema_{key.replace('.', '_')}" for key in state}
    return {key: value for key, value in state.items() if key not in kept}


def _find(entry: Entry, pretrained: str | None) -> tuple[Path | None, str]:
    if pretrained is None:
        return None, f"{RANDOM} (asked for)"
    if pretrained != "auto":
        path = Path(pretrained)
        if path.is_dir():
            path = path / CHECKPOINT_FILE
        return path, f"file {pretrained}"
    if not entry.weights:
        return None, f"{RANDOM}: MMPretrain publishes no checkpoint for {entry.name}"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return download(entry.weights, folder), f"MMPretrain model zoo, {entry.weights.rsplit('/', 1)[-1]}"
    except OSError:
        file = entry.weights.rsplit("/", 1)[-1]
        return None, f"{RANDOM}: {file} is neither in the local cache nor reachable"


__all__ = ["build"]
