"""MMPretrain: building its image classifiers from names or configs, and exporting checkpoint plus config."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.checkpoint import load_weights, read_state_dict
from mdpd_plugins.adapters.mmpretrain_config import Entry, encoder_state, fit, parameters, read_entry
from mdpd_plugins.adapters.origin import RANDOM, record_origin
from mdpd_plugins.adapters.weights import download
from mdpd_plugins.registry.errors import ConfigError, MissingDependencyError, closest

CONFIG_FILE, CHECKPOINT_FILE = "config.py", "model.pth"
INTERPOLATION = "bicubic"


class MMPretrainAdapter(Adapter):
    """An `mmpretrain.models.ImageClassifier`."""

    def __init__(self, model: nn.Module, *, name: str = "", modality: str = "image"):
        super().__init__(model, name=name, modality=modality)
        # BaseBackbone.eval returns None and some train() overrides skip submodules, so each is set by itself.
        for module in model.modules():
            module.training = False
        self.config: Any = getattr(model, "_config", None)

    @property
    def _reads_bgr(self) -> bool:
        # As the zoo's own preprocessor hands images over. One that does not normalise says nothing of colours either.
        preprocessor = self.model.data_preprocessor
        return getattr(preprocessor, "_enable_normalize", False) and not preprocessor.to_rgb

    def _call(self, inputs):
        image = inputs["image"]
        outputs = self.model(image.flip(1) if self._reads_bgr else image, mode="tensor")
        # A head with an output for each of two streams predicts by their sum (Conformer).
        return sum(outputs) if isinstance(outputs, (tuple, list)) else outputs

    def _preprocessing(self) -> dict[str, Any]:
        """Size of the backbone, mean and standard deviation of the classifier's own data preprocessor."""
        size = getattr(self.model.backbone, "img_size", None) or self._config_size() or 224
        size = (size, size) if isinstance(size, int) else tuple(size)
        found = {"size": size, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": INTERPOLATION}
        preprocessor = self.model.data_preprocessor
        if getattr(preprocessor, "_enable_normalize", False):
            found["mean"] = tuple((preprocessor.mean.flatten() / 255).tolist())
            found["std"] = tuple((preprocessor.std.flatten() / 255).tolist())
        if self._reads_bgr:
            found["mean"], found["std"] = found["mean"][::-1], found["std"][::-1]
        return found

    def _config_size(self):
        size = None
        for step in (self.config or {}).get("test_pipeline", []):
            if step.get("type") == "CenterCrop":
                size = step["crop_size"]
            elif step.get("type") == "Resize":
                size = size or step.get("scale")
        return size

    def replace_head(self, num_outputs: int) -> None:
        """A fresh output layer of the config's own kind; what lies before it in the head keeps its weights."""
        config = None if self.config is None else self.config.model
        if config is None or "num_classes" not in config.get("head", {}):
            super().replace_head(num_outputs)
            if config is not None:
                config.backbone.num_classes = num_outputs  # VGG and Inception carry their output layer there
            return
        from mmengine.registry import DefaultScope
        from mmpretrain.registry import MODELS

        # What does not depend on the number of outputs: a hidden layer (MobileNetV3), a norm (LeViT).
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            config.head.num_classes = num_outputs + 1
            other = MODELS.build(config.head).state_dict()
            config.head.num_classes = num_outputs
            new, old = MODELS.build(config.head), self.model.head.state_dict()
        _quietly(new.init_weights)
        kept = {k: old[k] for k, v in new.state_dict().items() if v.shape == other[k].shape}
        new.load_state_dict(kept, strict=False)
        for module in new.modules():
            module.training = False
        self.model.head = new.to(self.device)

    def set_labels(self, classes: tuple[str, ...], kind: str = "single") -> None:
        """Write class names where MMPretrain's inferencers read them."""
        self.model._dataset_meta = {"classes": list(classes)}

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        if self.config is None:
            raise ConfigError(
                "this MMPretrain model has no config to export: build it with mmpretrain.get_model, or by its "
                "registered name"
            )
        from mmengine.config import Config

        fields = {
            key: copy.deepcopy(self.config[key])
            for key in ("model", "data_preprocessor", "test_pipeline", "test_dataloader")
            if key in self.config
        }
        config = Config(fields)
        self._describe_preprocessing(config)
        config.model.pop("init_cfg", None)
        config.model.backbone.pop("init_cfg", None)
        config.dump(str(folder / CONFIG_FILE))
        meta = {"dataset_meta": getattr(self.model, "_dataset_meta", None) or {}}
        state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        torch.save({"meta": meta, "state_dict": state}, folder / CHECKPOINT_FILE)

    def _describe_preprocessing(self, config: Any) -> None:
        """Make the exported config prepare images as training did, and not as the zoo's own recipe does.

        MMPretrain's inferencer reads the data loader's copy of the pipeline.
        """
        p = self.preprocessing()
        config.test_pipeline = _pipeline(p["size"], p["interpolation"])
        loader = config.setdefault("test_dataloader", {"dataset": {"type": "CustomDataset"}})
        loader.dataset.pipeline = _pipeline(p["size"], p["interpolation"])
        if not getattr(self.model.data_preprocessor, "_enable_normalize", False):
            mean, std = ([255 * v for v in p[key]] for key in ("mean", "std"))
            config.model.pop("data_preprocessor", None)
            config.data_preprocessor = {"mean": mean, "std": std, "to_rgb": True}

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `mmpretrain.get_model`."""
        from mmpretrain import get_model

        folder = Path(folder)
        return get_model(str(folder / CONFIG_FILE), pretrained=str(folder / CHECKPOINT_FILE))


def build(
    *,
    name: str,
    pretrained: str | None = "auto",
    num_classes: int,
    image_size: int | None = None,
    backbone: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
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
    _mmpretrain()
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
        config.test_pipeline = _pipeline((image_size, image_size), INTERPOLATION)
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
    path, origin = _find(entry, pretrained)
    if path is not None:
        adapter, state = MMPretrainAdapter(model), read_state_dict(path)
        # A path may be an export of ours, which is a classifier.
        if entry.bare and not all(k in state for k in model.state_dict() if k.startswith("head.")):
            state = encoder_state(model, state, f"{str(path)!r}")
        load_weights(model, _converted(model, state), adapter.head_parameters(), f"{str(path)!r}")
    record_origin(model, origin)
    model.eval()
    return model


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
    model._config = config
    _quietly(model.init_weights)
    return model


def _takes(argument: str, config, changes: dict[str, Any], part: str) -> bool:
    # Convolutional backbones, for example, take images of any size and have no argument for it.
    from mmpretrain.registry import MODELS

    given = (config.model.get(part) or {}).get("type")
    return argument in parameters(MODELS.get(changes[part].get("type", given)))


def _pipeline(size: tuple[int, int], interpolation: str) -> list[dict[str, Any]]:
    # Resized as collation does it: with Pillow, to height and width, whatever the shape.
    resize = dict(type="Resize", scale=(size[1], size[0]), interpolation=interpolation, backend="pillow")
    return [dict(type="LoadImageFromFile"), resize, dict(type="PackInputs")]


def _converted(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # The zoo's own pre-hooks (older key names, resized position embeddings) edit the mapping in place.
    state = dict(state)
    for prefix, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            hook(state, f"{prefix}." if prefix else "", {}, True, [], [], [])
    return state


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


def _quietly(call) -> None:
    # init_weights logs every tensor; that belongs to nobody's training log.
    logger = logging.getLogger("mmengine")
    level, logger.level = logger.level, logging.ERROR
    from mmengine.logging import MMLogger

    current = MMLogger.get_current_instance()
    before, current.level = current.level, logging.ERROR
    try:
        call()
    finally:
        logger.level, current.level = level, before


def _mmpretrain():
    try:
        import mmpretrain
    except ImportError as error:
        raise MissingDependencyError(
            f"this backbone needs MMPretrain: pip install 'mdpd-plugins[mmpretrain]' ({error})"
        ) from error
    return mmpretrain


__all__ = ["MMPretrainAdapter", "build"]
