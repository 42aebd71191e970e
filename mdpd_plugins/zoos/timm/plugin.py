"""timm's live models. No backbones are registered: `timm.create_model` builds them, and `adapt` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdpd_plugins.registry import hookimpl, resolve
from mdpd_plugins.zoos import installed

ZOO = "timm"


@hookimpl
def adapt_backbone(model: Any) -> Any:
    if installed.comes_from(model, "timm"):
        return resolve("mdpd_plugins.zoos.timm.adapter:TimmAdapter")(model)
    return None


@hookimpl
def load_export(folder: Path, record: Any) -> Any:
    return resolve("mdpd_plugins.zoos.timm.exported:load")(folder, record) if record.zoo == ZOO else None
