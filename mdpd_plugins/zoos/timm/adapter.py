"""timm: preparing data for its classifiers, and exporting them as `timm.create_model("local-dir:...")` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.registry.errors import ConfigError


class TimmAdapter(Adapter):
    """A timm classifier. Size and normalisation are as its own data configuration says."""

    load_with = "timm.create_model('local-dir:FOLDER', pretrained=True)"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = "image"):
        built = as_built(model)
        self.pretrained_cfg: dict[str, Any] = getattr(built.model, "pretrained_cfg", None) or {}
        architecture = self.pretrained_cfg.get("architecture") or type(built.model).__name__
        super().__init__(built, name=name or f"timm/{architecture}", modality=modality or "image")

    def _preprocessing(self) -> dict[str, Any]:
        data = timm.data.resolve_model_data_config(self.model)
        patches = getattr(self.model, "patch_embed", None)
        size = getattr(patches, "img_size", None) or data["input_size"][1:]
        return {
            "size": tuple(size),
            "mean": tuple(data["mean"]),
            "std": tuple(data["std"]),
            "interpolation": data["interpolation"],
        }

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

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `timm.create_model`."""
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


__all__ = ["TimmAdapter"]
