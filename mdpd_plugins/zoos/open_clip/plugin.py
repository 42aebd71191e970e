"""The OpenCLIP zoo: every model configuration that the installed open_clip ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mdpd_plugins.registry import BackboneSpec, EnvironmentReport, Register, hookimpl, resolve
from mdpd_plugins.zoos import installed

ZOO = "open_clip"
EXTRA = "pip install 'mdpd-plugins[open_clip]'"


@hookimpl
def register_backbones(register: Register[BackboneSpec]) -> None:
    folder = installed.package_folder("open_clip")
    if folder is None:
        register.unavailable(ZOO, reason="open_clip is not installed", fix=EXTRA)
        return
    configs = sorted((folder / "model_configs").glob("*.json"))
    if not configs:
        register.unavailable(ZOO, reason=f"open_clip has no model configurations in {folder}", fix=EXTRA)
        return
    for path in configs:
        register(
            BackboneSpec(
                f"{ZOO}/{path.stem}",
                build="mdpd_plugins.zoos.open_clip.build:build",
                family=family(path),
                modality="image-text",
                requires=("open_clip",),
                adapter="mdpd_plugins.zoos.open_clip.pair:open_clip_adapter",
                small="mdpd_plugins.zoos.open_clip.small:small",
            )
        )


def family(path: Path) -> str:
    """The architecture of the visual tower: "vit", "resnet", or the first word of timm's name for it."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        vision = config["vision_cfg"]
        timm_name = str(vision.get("timm_model_name") or "")
    except (OSError, ValueError, KeyError, AttributeError):
        return ""  # open_clip says what is wrong with the file when the model is built
    if timm_name:
        return timm_name.partition("_")[0]
    # OpenCLIP itself tells its own ResNets by a list of stage depths.
    return "resnet" if isinstance(vision.get("layers"), list) else "vit"


@hookimpl
def load_export(folder: Path, record: Any) -> Any:
    return resolve("mdpd_plugins.zoos.open_clip.exported:load")(folder, record) if record.zoo == ZOO else None


@hookimpl
def adapt_backbone(model: Any) -> Any:
    if installed.comes_from(model, "open_clip"):
        return resolve("mdpd_plugins.zoos.open_clip.pair:open_clip_adapter")(model)
    return None


@hookimpl
def check_environment(report: EnvironmentReport) -> None:
    version = installed.version("open_clip_torch")
    if version is None:
        report.note("open_clip", "not installed: the open_clip zoo has no backbones here", fix=EXTRA)
        return
    if installed.release(version) >= (4,):
        report.problem(
            "open_clip",
            f"version {version} is installed; open_clip 4 no longer uses nn.MultiheadAttention, which the "
            "capture of attention maps relies on",
            fix="pip install 'open_clip_torch>=3.3,<4'",
        )
        return
    if installed.release(version) < (3, 3):
        report.problem(
            "open_clip",
            f"version {version} is installed; the adapter is written for >=3.3",
            fix="pip install 'open_clip_torch>=3.3,<4'",
        )
        return

    def tried(failure: str | None) -> None:
        if failure:
            report.problem("open_clip", f"version {version} does not import: {failure}", fix=EXTRA)
        else:
            report.ok("open_clip", f"version {version}")

    report.try_import("import open_clip", tried)
