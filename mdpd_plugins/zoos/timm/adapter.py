"""timm: preparing data for its classifiers, and exporting them as `timm.create_model("local-dir:...")` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.transform import PictureTransform, Size
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.zoos.timm.data import data_config, timm_transform


class TimmAdapter(Adapter):
    """A timm classifier."""

    load_with = "timm.create_model('local-dir:FOLDER', pretrained=True)"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = "image"):
        built = as_built(model)
        self.pretrained_cfg: dict[str, Any] = getattr(built.model, "pretrained_cfg", None) or {}
        architecture = self.pretrained_cfg.get("architecture") or type(built.model).__name__
        super().__init__(built, name=name or f"timm/{architecture}", modality=modality or "image")

    @property
    def _own_size(self) -> Size:
        height, width = data_config(self.model)["input_size"][1:]
        return height, width

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """timm's own evaluation transform, of the model's data configuration."""
        return timm_transform(data_config(self.model), size, stretch)

    def replace_head(self, num_outputs: int) -> None:
        """A fresh classifier, as timm's own `reset_classifier` makes it."""
        self.model.reset_classifier(num_outputs)  # type: ignore[operator]
        self.model.to(self.device).eval()

    def write(self, folder: Path) -> None:
        """timm's own files: safetensors and a config with the architecture and the arguments it was made with."""
        if "architecture" not in self.pretrained_cfg:
            raise ConfigError(
                f"{self.name} does not say which architecture of timm it is: make it with timm.create_model, and not "
                f"from its class"
            )
        names = {"label_names": list(self.labels[1])} if self.labels and self.labels[1] else {}
        timm.models.save_for_hf(self.model, str(folder), model_config=names, safe_serialization=True)
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        # Said at the top of the file, too, and transformers' wrapper takes no model that says it twice.
        config.get("model_args", {}).pop("num_classes", None)
        if self.input_size is not None or self.resize != "auto":
            config["pretrained_cfg"] |= timm_transform(
                data_config(self.model), self.input_size, self.resize == "stretch"
            ).config
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `timm.create_model`."""
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


__all__ = ["TimmAdapter"]
