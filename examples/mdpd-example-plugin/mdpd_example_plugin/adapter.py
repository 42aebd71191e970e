"""What is special about the network: how its pictures are prepared, and the files that it is exported as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mdpd_example_plugin.model import load, save
from mdpd_plugins.adapters import Adapter, Built


class SmallViTAdapter(Adapter):
    """Blocks, norms, attention and head are found by the general adapter."""

    load_with = "mdpd_example_plugin.model.load(FOLDER)"

    def __init__(self, model: nn.Module | Built, *, name: str = "example/small-vit", modality: str = "image"):
        super().__init__(model, name=name, modality=modality)

    def _preprocessing(self) -> dict[str, Any]:
        size = self.model.sizes["image_size"]
        return {"size": (size, size), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bilinear"}

    def write(self, folder: Path) -> None:
        save(self.model, folder)

    def load_exported(self, folder: str | Path) -> nn.Module:
        return load(folder)
