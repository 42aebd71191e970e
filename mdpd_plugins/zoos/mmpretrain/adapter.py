"""MMPretrain: preparing data for its image classifiers, and exporting checkpoint plus config."""

from __future__ import annotations

import copy
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.transform import PictureTransform, Size
from mdpd_plugins.registry.errors import ConfigError, MissingDependencyError
from mdpd_plugins.zoos.mmpretrain.config_file import read_exported_config
from mdpd_plugins.zoos.mmpretrain.pipeline import PipelinePictures, fitted, read_steps, write_steps

CONFIG_FILE, CHECKPOINT_FILE = "config.py", "model.pth"


class MMPretrainAdapter(Adapter):
    """An `mmpretrain.models.ImageClassifier`."""

    load_with = "mmpretrain.get_model('config.py', pretrained='model.pth')"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = "image"):
        built = as_built(model)
        super().__init__(built, name=name or f"mmpretrain/{type(built.model).__name__}", modality=modality)
        # mmpretrain.get_model leaves a live model's config on it.
        self.config: Any = built.settings if built.settings is not None else getattr(self.model, "_config", None)

    def _call(self, inputs):
        outputs = self.model(inputs["image"], mode="tensor")
        # A head with an output for each of two streams predicts by their sum (Conformer).
        return sum(outputs) if isinstance(outputs, (tuple, list)) else outputs

    @cached_property
    def _own_size(self) -> Size:  # type: ignore[override]
        return fitted(read_steps(self.config), None, self._backbone_size)[1]

    @property
    def _backbone_size(self) -> Size:
        size = getattr(self.model.backbone, "img_size", None) or 224
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """By the config's own test pipeline, and the model's own data preprocessor."""
        steps, size = fitted(read_steps(self.config), size, self._backbone_size, stretch)
        return PipelinePictures(steps, self.model.data_preprocessor, size)

    def declared_blocks(self) -> int | None:
        """By the backbone's blocks of each stage, or its number of layers."""
        backbone = self.model.backbone
        stages = getattr(backbone, "stage_blocks", None) or getattr(backbone, "depths", None)
        if isinstance(stages, (list, tuple)):
            # A dense layer puts out what is new alone: the blocks of DenseNet are what holds them.
            return len(stages) if hasattr(backbone, "growth_rate") else sum(stages)
        return getattr(backbone, "num_layers", None)

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
        quietly(new.init_weights)
        kept = {k: old[k] for k, v in new.state_dict().items() if v.shape == other[k].shape}
        new.load_state_dict(kept, strict=False)
        for module in new.modules():
            module.training = False
        self.model.head = new.to(self.device)

    def set_labels(self, classes: tuple[str, ...], kind: str = "single") -> None:
        """Write class names where MMPretrain's inferencers read them."""
        super().set_labels(classes, kind)
        self.model._dataset_meta = {"classes": list(classes)}

    def class_names(self, count: int) -> tuple[str, ...]:
        """Those of the data that the model was trained on, if it has as many outputs."""
        names = (getattr(self.model, "_dataset_meta", None) or {}).get("classes") or ()
        return tuple(map(str, names)) if len(names) == count else super().class_names(count)

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
        # Pictures are prepared as in training.
        stretch = self.resize == "stretch"
        write_steps(config, fitted(read_steps(config), self.input_size, self._backbone_size, stretch)[0])
        config.model.pop("init_cfg", None)
        config.model.backbone.pop("init_cfg", None)
        config.dump(str(folder / CONFIG_FILE))
        meta = {"dataset_meta": getattr(self.model, "_dataset_meta", None) or {}}
        state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        torch.save({"meta": meta, "state_dict": state}, folder / CHECKPOINT_FILE)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `mmpretrain.get_model`."""
        from mmpretrain import get_model

        folder = Path(folder)
        return get_model(read_exported_config(folder / CONFIG_FILE), pretrained=str(folder / CHECKPOINT_FILE))


def quietly(call) -> None:
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


def import_mmpretrain():
    try:
        import mmpretrain
    except ImportError as error:
        raise MissingDependencyError(
            f"this backbone needs MMPretrain: pip install 'mdpd-plugins[mmpretrain]' ({error})"
        ) from error
    return mmpretrain


__all__ = ["MMPretrainAdapter", "import_mmpretrain", "quietly"]
