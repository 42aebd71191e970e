"""The MMPretrain zoo: every model in the model index that the installed mmpretrain ships."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from mdpd_plugins.cache import cached
from mdpd_plugins.registry import BackboneSpec, EnvironmentReport, Register, SourceSpec, hookimpl, resolve
from mdpd_plugins.zoos import installed

ZOO = "mmpretrain"
EXTRA = "pip install 'mdpd-plugins[mmpretrain]'"
CACHE_FORMAT = 2

# The tasks of MMPretrain's metafiles whose models have a text tower or a language model.
IMAGE_TEXT_TASKS = {
    "Image Caption",
    "Visual Question Answering",
    "Visual Grounding",
    "Image-To-Text Retrieval",
    "Text-To-Image Retrieval",
    "NLVR",
}
NEW_HEAD = "gets a new linear head"
# What stands in the configs of entries that no classifier can be made of here, and why.
UNUSABLE = {
    "type='OFA'": "no classifier: a part of its language model reads the image, no backbone stands alone",
    "type='ModifiedResNet'": "no classifier here: its encoder needs mmpretrain[multimodal] and transformers below 5",
}


@hookimpl
def register_backbones(register: Register[BackboneSpec]) -> None:
    folder = installed.package_folder("mmpretrain")
    if folder is None:
        register.unavailable(ZOO, reason="mmpretrain is not installed", fix=EXTRA)
        return
    index = find_model_index(folder)
    if index is None:
        register.unavailable(ZOO, reason=f"the mmpretrain in {folder} ships no model-index.yml", fix=EXTRA)
        return
    for name, family, modality, summary in list_models(index):
        register(
            BackboneSpec(
                f"{ZOO}/{name}",
                build="mdpd_plugins.zoos.mmpretrain.build:build",
                family=family,
                modality=modality,
                summary=summary,
                requires=("mmpretrain", "mmcv"),
                adapter="mdpd_plugins.zoos.mmpretrain.adapter:MMPretrainAdapter",
                small="mdpd_plugins.zoos.mmpretrain.small:small",
            )
        )


def find_model_index(folder: Path) -> Path | None:
    """The model index of an installed mmpretrain (inside `.mim`) or of a checkout (beside the package)."""
    for candidate in (folder / ".mim" / "model-index.yml", folder.parent / "model-index.yml"):
        if candidate.is_file():
            return candidate
    return None


def list_models(index: Path) -> list[tuple[str, str, str, str]]:
    """(name, family, modality, summary) of each model, names as `mmpretrain.list_models()` gives them.

    Reading 85 YAML files takes seconds without libyaml, so the result is cached for this version and file.
    """
    key = {
        "format": CACHE_FORMAT,
        "version": installed.version("mmpretrain"),
        "index": str(index),
        "changed": index.stat().st_mtime_ns,
    }
    rows = cached("mmpretrain-models", key, lambda: read_models(index), _valid)
    return [(name, family, modality, summary) for name, family, modality, summary in rows]


def read_models(index: Path) -> list[list[str]]:
    """Read the model index and the metafiles it imports: rows of name, family, modality and summary."""
    content = _load_yaml(index)
    files = [index.parent / entry for entry in content.get("Import") or []]
    rows: dict[str, list[str]] = {}
    for data in [content, *map(_load_yaml, files)]:
        for model in data.get("Models") or []:
            # MMPretrain's own model hub looks names up in lower case.
            name = str(model["Name"]).lower()
            rows[name] = [name, str(model.get("In Collection") or ""), *_what(name, model, index.parent)]
    return [rows[name] for name in sorted(rows)]


def _what(name: str, model: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Modality and summary of an entry: a classifier, or an encoder inside something else."""
    results = model.get("Results") or []
    tasks = {result.get("Task") for result in ([results] if isinstance(results, dict) else results)}
    # A zero-shot classifier counts as "Image Classification" there, and compares with embedded texts.
    with_text = bool(tasks & IMAGE_TEXT_TASKS) or "zeroshot" in name
    if tasks & {"Image Classification", "Multi-Label Classification"} and not with_text:
        return "image", "image classifier"
    config = _config_text(folder / str(model.get("Config")))
    for mark, reason in UNUSABLE.items():
        if mark in config:
            return ("image-text" if with_text else "image"), reason
    if with_text:
        return "image", f"image encoder of a model of images and text; {NEW_HEAD}"
    own = re.search(r"model = dict\(\s*type='(\w+)'", config)
    outer = own is not None and own[1] != "ImageClassifier"
    headless = "head=None" in config or (own is not None and "head=" not in config)
    if tasks or outer or headless or "Downstream" in model:
        return "image", f"encoder without a classifier; {NEW_HEAD}"
    return "image", "image classifier"


def _config_text(path: Path) -> str:
    """A config's text after that of the model files it builds on; "" if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    bases = re.findall(r"'([^']*_base_/models/[^']*\.py)'", text)
    return "\n".join([*(_config_text(path.parent / base) for base in bases), text])


def _load_yaml(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, loader) or {}  # noqa: S506 (both are safe loaders)


def _valid(rows: Any) -> bool:
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, list) and len(row) == 4 for row in rows)
        and all(isinstance(entry, str) for row in rows for entry in row)
    )


@hookimpl
def register_sources(register: Register[SourceSpec]) -> None:
    summary = "any image classification data set class of MMPretrain"
    register(SourceSpec(ZOO, open="mdpd_plugins.zoos.mmpretrain.data_source:open_mmpretrain", summary=summary))


@hookimpl
def load_export(folder: Path, record: Any) -> Any:
    return resolve("mdpd_plugins.zoos.mmpretrain.exported:load")(folder, record) if record.zoo == ZOO else None


@hookimpl
def adapt_backbone(model: Any) -> Any:
    if installed.comes_from(model, "mmpretrain"):
        return resolve("mdpd_plugins.zoos.mmpretrain.adapter:MMPretrainAdapter")(model)
    return None


@hookimpl
def check_environment(report: EnvironmentReport) -> None:
    version = installed.version("mmpretrain")
    if version is None:
        report.note("mmpretrain", "not installed: the mmpretrain zoo has no backbones here", fix=EXTRA)
        return
    if _check_mmcv(report):
        report.try_import("import mmpretrain", partial(_report_import, report, version))
    _check_numpy(report)
    if installed.package_folder("pkg_resources") is None:
        report.note(
            "setuptools",
            f"setuptools {installed.version('setuptools') or '(not installed)'} brings no pkg_resources, so "
            "a config with `_base_ = 'mmpretrain::...'` cannot be read by mmengine",
            fix="write `_base_` as a relative path, or pip install 'setuptools<82'",
        )


def _report_import(report: EnvironmentReport, version: str, failure: str | None) -> None:
    """Whether mmpretrain imports; where that was not tried, whether a combination known to fail is absent."""
    transformers = installed.version("transformers") or ""
    clash = installed.version("pycocotools") is not None and installed.release(transformers) >= (5,)
    if clash and (failure or not report.try_imports):
        report.problem(
            "pycocotools",
            "with pycocotools installed, mmpretrain loads its multimodal models, and those do not import "
            f"with transformers {transformers}{f': {failure}' if failure else ''}",
            fix="pip uninstall pycocotools",
        )
    elif failure:
        report.problem("mmpretrain", f"version {version} does not import: {failure}", fix=_import_fix(failure))
    else:
        report.ok("mmpretrain", f"version {version}")


def _check_numpy(report: EnvironmentReport) -> None:
    numpy = installed.version("numpy") or ""
    if installed.release(numpy) >= (2,):
        gone = installed.release(numpy) >= (2, 4)
        report.note(
            "mmpretrain retrieval metrics",
            f"they call numpy.in1d, which numpy {numpy} {'no longer has' if gone else 'is about to drop'}; "
            "classification is not affected",
            fix="pip install 'numpy<2', if you need MMPretrain's own retrieval metrics",
        )


def _check_mmcv(report: EnvironmentReport) -> bool:
    """Whether exactly one mmcv of a version that mmpretrain 1.2 accepts is there; reports where not."""
    full, lite = installed.version("mmcv"), installed.version("mmcv-lite")
    if full and lite:
        report.problem(
            "mmcv",
            f"mmcv {full} and mmcv-lite {lite} are both installed into one folder and overwrite each other",
            fix="pip uninstall mmcv mmcv-lite, then pip install mmcv-lite==2.2.0",
        )
        return False
    found = lite or full
    if found is None:
        report.problem(
            "mmcv",
            "mmpretrain needs mmcv and does not declare it; the full one no longer builds from source",
            fix="pip install mmcv-lite==2.2.0",
        )
        return False
    if not (2,) <= installed.release(found) < (2, 4):
        report.problem(
            "mmcv",
            f"version {found} is installed; mmpretrain 1.2 takes >=2.0.0,<2.4.0",
            fix="pip install mmcv-lite==2.2.0",
        )
        return False
    return True


def _import_fix(failure: str) -> str:
    if "torchvision" in failure:
        return "install torch and torchvision together: pip install --force-reinstall torch torchvision"
    if "libGL" in failure or "libgthread" in failure:
        return "pip uninstall opencv-python, then pip install opencv-python-headless"
    return EXTRA
