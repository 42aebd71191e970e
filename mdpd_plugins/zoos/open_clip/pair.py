"""Both towers of an OpenCLIP model with their joint space as it is: what retrieval trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.towers.fusion import compared
from mdpd_plugins.adapters.towers.pair import PairAdapter
from mdpd_plugins.zoos.open_clip.adapter import OpenCLIPAdapter


class OpenCLIPPairAdapter(PairAdapter):
    """Both towers of one model. Outputs are (B, 2, E), see `fusion.compared`; the scale is the model's own.

    Args:
        model: what `open_clip.build` makes with tower="both".
    """

    usage = ""  # one plain OpenCLIP model, not two folders
    load_with = OpenCLIPAdapter.load_with
    zoo = OpenCLIPAdapter.zoo
    parts = OpenCLIPAdapter.parts

    def __init__(self, model: nn.Module | Built, *, name: str = ""):
        image, text = (OpenCLIPAdapter(model, name=name, modality=m) for m in ("image", "text"))
        super().__init__(model, image, text, places=("", ""), joining="logit_scale", fusion=self._compared, name=name)

    def _compared(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return compared(image, text, self.model.get_parameter("logit_scale"))

    def around(self, model: nn.Module) -> OpenCLIPPairAdapter:
        """An adapter for another such model."""
        return OpenCLIPPairAdapter(replace(self.built, model=model), name=self.name)

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        self.image.write(folder)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `open_clip.create_model_and_transforms`."""
        return self.image.load_exported(folder)


def open_clip_adapter(model: nn.Module | Built, *, name: str = "", modality: str = "") -> Adapter:
    """The adapter of an OpenCLIP model: of the tower that `build` was asked for, or of both."""
    settings: dict[str, Any] = as_built(model).settings or {}
    if settings.get("tower") == "both" and not modality:
        return OpenCLIPPairAdapter(model, name=name)
    return OpenCLIPAdapter(model, name=name, modality=modality)


__all__ = ["OpenCLIPPairAdapter", "open_clip_adapter"]
