"""The HuggingFace transformers zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdpd_plugins.registry import BackboneSpec, EnvironmentReport, Register, SourceSpec, hookimpl, resolve
from mdpd_plugins.zoos import installed
from mdpd_plugins.zoos.huggingface.models import ARCHITECTURES, encoder_types, modality, model_types

ZOO = "huggingface"
EXTRA = "pip install 'mdpd-plugins[huggingface]'"


@hookimpl
def register_backbones(register: Register[BackboneSpec]) -> None:
    if installed.package_folder("transformers") is None:
        register.unavailable(ZOO, reason="transformers is not installed", fix=EXTRA)
        return
    for name, architecture in ARCHITECTURES.items():
        summary = f"{architecture.hub} on the hub"
        register(_spec(name, architecture.family, modality(architecture), summary))
    for model_type, reads in model_types().items():
        summary = f"any {model_type} checkpoint, given as pretrained="
        register(_spec(model_type, model_type, "image-text" if len(reads) > 1 else reads[0], summary))
    for model_type, reads_one in encoder_types().items():
        summary = f"any {model_type} checkpoint, given as pretrained=; a bare encoder, gets a linear head"
        register(_spec(model_type, model_type, reads_one, summary))


def _spec(name: str, family: str, modality: str, summary: str) -> BackboneSpec:
    return BackboneSpec(
        f"{ZOO}/{name}",
        build="mdpd_plugins.zoos.huggingface.encoder:build",
        family=family,
        modality=modality,
        summary=summary,
        requires=("transformers",),
        adapter="mdpd_plugins.zoos.huggingface.causal:adapter_of",
        small="mdpd_plugins.zoos.huggingface.small:small",
    )


@hookimpl
def register_sources(register: Register[SourceSpec]) -> None:
    summary = "any data set that the library `datasets` loads, from the hub or a folder"
    register(SourceSpec(ZOO, open="mdpd_plugins.data.sources.hub:open_huggingface", summary=summary))


@hookimpl
def load_export(folder: Path, record: Any) -> Any:
    return resolve("mdpd_plugins.zoos.huggingface.exported:load")(folder, record) if record.zoo == ZOO else None


@hookimpl
def adapt_backbone(model: Any) -> Any:
    encoder = type(model).__module__ == "mdpd_plugins.zoos.huggingface.encoder"
    if encoder or installed.comes_from(model, "transformers"):
        return resolve("mdpd_plugins.zoos.huggingface.causal:adapter_of")(model)
    return None


@hookimpl
def check_environment(report: EnvironmentReport) -> None:
    version = installed.version("transformers")
    if version is None:
        report.note("transformers", "not installed: the huggingface zoo has no backbones here", fix=EXTRA)
        return
    if not (5, 9) <= installed.release(version) < (6,):
        report.problem(
            "transformers",
            f"version {version} is installed; the adapter is written for >=5.9,<6, where the names of "
            "modules and the outputs of blocks differ from other releases",
            fix="pip install 'transformers>=5.9,<6'",
        )
        return

    def tried(failure: str | None) -> None:
        if failure:
            report.problem("transformers", f"version {version} does not import: {failure}", fix=EXTRA)
        else:
            report.ok("transformers", f"version {version}")

    report.try_import("from transformers import AutoModel, ViTModel, BertModel", tried)
