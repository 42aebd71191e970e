"""The HuggingFace transformers zoo."""

from __future__ import annotations

from mdpd_plugins.registry import BackboneSpec, EnvironmentReport, Register, hookimpl
from mdpd_plugins.zoos import installed

ZOO = "huggingface"
EXTRA = "pip install 'mdpd-plugins[huggingface]'"

# name, family, modality, hub id
MODELS = (
    ("vit-base-patch16-224", "vit", "image", "google/vit-base-patch16-224"),
    ("deit-base-patch16-224", "deit", "image", "facebook/deit-base-patch16-224"),
    ("dinov2-small", "dinov2", "image", "facebook/dinov2-small"),
    ("dinov2-base", "dinov2", "image", "facebook/dinov2-base"),
    ("bert-base-uncased", "bert", "text", "google-bert/bert-base-uncased"),
    ("minilm-l6", "bert", "text", "sentence-transformers/all-MiniLM-L6-v2"),
)


@hookimpl
def register_backbones(register: Register) -> None:
    if installed.package_folder("transformers") is None:
        register.unavailable(ZOO, reason="transformers is not installed", fix=EXTRA)
        return
    for name, family, modality, hub_id in MODELS:
        register(
            BackboneSpec(
                f"{ZOO}/{name}",
                build="mdpd_plugins.adapters.huggingface:build",
                family=family,
                modality=modality,
                summary=f"{hub_id} on the hub",
                requires=("transformers",),
                adapter="mdpd_plugins.adapters.huggingface:HuggingFaceAdapter",
            )
        )


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
    if report.try_imports:
        failure = installed.import_failure("from transformers import AutoModel, ViTModel, BertModel")
        if failure:
            report.problem("transformers", f"version {version} does not import: {failure}", fix=EXTRA)
            return
    report.ok("transformers", f"version {version}")
