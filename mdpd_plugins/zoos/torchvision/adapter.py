"""torchvision: its classifiers by the names that `torchvision.models.get_model` takes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.models.googlenet import InceptionAux as GoogLeNetAux
from torchvision.models.inception import InceptionAux
from torchvision.transforms._presets import ImageClassification

from mdpd_plugins.adapters.adapter import WEIGHTS_FILE, Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.storage.checkpoint import SAFETENSORS_FORMAT
from mdpd_plugins.adapters.transform import EachPicture, ImageTransform, PictureTransform, Size
from mdpd_plugins.registry.errors import ConfigError

MODEL_FILE = "torchvision.json"
# ImageNet's, which every classification preset of torchvision has (torchvision.transforms._presets).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What those two may be built with, and keep: published weights come with another choice than fresh ones.
OPTIONS = ("aux_logits", "transform_input")
SHORTER, CROPPED = 256, 224  # the preset's own: the shorter side, and the square that is cut out of it


class TorchvisionAdapter(Adapter):
    """A torchvision classifier."""

    load_with = "torchvision.models.get_model(NAME, num_classes=N) of torchvision.json, and safetensors' load_model"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = "image"):
        built = as_built(model)
        name = name or f"torchvision/{type(built.model).__name__}"
        super().__init__(built, name=name, modality=modality or "image")

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """torchvision's preset for classifiers. Which weights a live model has, and so how much they cut off, is not
        to be seen in it: `adapt(model, transform=weights.transforms())` says it."""
        height, width = size or self._own_size
        if stretch:
            return ImageTransform((height, width), MEAN, STD, "bilinear")
        shorter = round(max(height, width) * SHORTER / CROPPED)
        preset = ImageClassification(crop_size=height, resize_size=shorter)
        preset.crop_size = [height, width]
        return EachPicture(preset, (height, width))

    def replace_head(self, num_outputs: int) -> None:
        """A fresh output layer; those of auxiliary classifiers (Inception v3, GoogLeNet) get as many outputs.

        They are used in training mode alone, so nothing here trains them; torchvision builds all of them alike.
        """
        super().replace_head(num_outputs)
        for part in self.model.modules():
            if isinstance(part, (InceptionAux, GoogLeNetAux)):
                name = "fc" if isinstance(part, InceptionAux) else "fc2"
                old = getattr(part, name)
                new = nn.Linear(old.in_features, num_outputs, bias=old.bias is not None)
                setattr(part, name, new.to(old.weight))

    def write(self, folder: Path) -> None:
        """Weights, and the name, number of outputs and options that torchvision builds the same model from.

        Raises:
            ConfigError: torchvision has no model of that name that is built so.
        """
        from safetensors.torch import save_model

        outputs = self.num_outputs
        about = {"model": model_name(self.model, outputs), "num_classes": outputs, **_options(self.model)}
        save_model(self.model, str(folder / WEIGHTS_FILE), metadata=SAFETENSORS_FORMAT)
        (folder / MODEL_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The model that `torchvision.models.get_model` builds, with the exported weights."""
        return read(Path(folder))


def model_name(model: nn.Module, outputs: int) -> str:
    """The name under which torchvision builds just this network, by building the candidates without memory.

    Raises:
        ConfigError: there is none: the model was changed, or built with other arguments than a name's own.
    """
    module, said = type(model).__module__, _described(model)
    names = [
        n for n in torchvision.models.list_models() if torchvision.models.get_model_builder(n).__module__ == module
    ]
    for name in names:
        with torch.device("meta"):
            other = torchvision.models.get_model(name, weights=None, num_classes=outputs, **_options(model))
        if _described(other) == said:
            return name
    raise ConfigError(
        f"torchvision builds no {type(model).__name__} like this one under any of its names ({', '.join(names)}), so "
        f"an export could not say how to load it: save its state_dict, or register it as a backbone of your own"
    )


def _options(model: nn.Module) -> dict[str, bool]:
    return {name: bool(vars(model)[name]) for name in OPTIONS if name in vars(model)}


def _described(model: nn.Module) -> tuple[str, dict[str, torch.Size]]:
    return repr(model), {k: v.shape for k, v in model.state_dict().items()}


def read(folder: Path) -> nn.Module:
    """The model of an exported folder."""
    from safetensors.torch import load_model

    about = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    given = {name: about[name] for name in OPTIONS if name in about}
    model = torchvision.models.get_model(about["model"], weights=None, num_classes=about["num_classes"], **given)
    load_model(model, str(folder / WEIGHTS_FILE))
    return model.eval()


__all__ = ["TorchvisionAdapter", "model_name", "read"]
