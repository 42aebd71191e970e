"""The MMPretrain zoo: every model in the model index that the installed mmpretrain ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdpd_plugins.registry import BackboneSpec, EnvironmentReport, Register, hookimpl, resolve
from mdpd_plugins.zoos import installed
from mdpd_plugins.zoos.cache import cached

ZOO = "mmpretrain"
EXTRA = "pip install 'mdpd-plugins[mmpretrain]'"
CACHE_FORMAT = 1

# The tasks of MMPretrain's metafiles whose models have a text tower or a language model.
IMAGE_TEXT_TASKS = {
    "Image Caption",
    "Visual Question Answering",
    "Visual Grounding",
    "Image-To-Text Retrieval",
    "Text-To-Image Retrieval",
    "NLVR",
}


@hookimpl
def register_backbones(register: Register) -> None:
    folder = installed.package_folder("mmpretrain")
    if folder is None:
        register.unavailable(ZOO, reason="mmpretrain is not installed", fix=EXTRA)
        return
    index = find_model_index(folder)
    if index is None:
        register.unavailable(ZOO, reason=f"the mmpretrain in {folder} ships no model-index.yml", fix=EXTRA)
        return
    for name, family, modality in list_models(index):
        register(
            BackboneSpec(
                f"{ZOO}/{name}",
                build="mdpd_plugins.adapters.mmpretrain:build",
                family=family,
                modality=modality,
                requires=("mmpretrain", "mmcv"),
                adapter="mdpd_plugins.adapters.mmpretrain:MMPretrainAdapter",
                small="mdpd_plugins.reduction.mmpretrain:small",
            )
        )


def find_model_index(folder: Path) -> Path | None:
    """The model index of an installed mmpretrain (inside `.mim`) or of a checkout (beside the package)."""
    for candidate in (folder / ".mim" / "model-index.yml", folder.parent / "model-index.yml"):
        if candidate.is_file():
            return candidate
    return None


def list_models(index: Path) -> list[tuple[str, str, str]]:
    """(name, family, modality) of each model, names as `mmpretrain.list_models()` gives them.

    Reading 85 YAML files takes seconds without libyaml, so the result is cached for this version and file.
    """
    key = {
        "format": CACHE_FORMAT,
        "version": installed.version("mmpretrain"),
        "index": str(index),
        "changed": index.stat().st_mtime_ns,
    }
    rows = cached("mmpretrain-models", key, lambda: read_models(index), _valid)
    return [(name, family, modality) for name, family, modality in rows]


def read_models(index: Path) -> list[list[str]]:
    """Read the model index and the metafiles it imports: rows of name, family and modality."""
    content = _load_yaml(index)
    files = [index.parent / entry for entry in content.get("Import") or []]
    rows: dict[str, list[str]] = {}
    for data in [content, *map(_load_yaml, files)]:
        for model in data.get("Models") or []:
            # MMPretrain's own model hub looks names up in lower case.
            name = str(model["Name"]).lower()
            rows[name] = [name, str(model.get("In Collection") or ""), _modality(name, model)]
    return [rows[name] for name in sorted(rows)]


def _modality(name: str, model: dict[str, Any]) -> str:
    results = model.get("Results") or []
    tasks = {result.get("Task") for result in ([results] if isinstance(results, dict) else results)}
    # A zero-shot classifier counts as "Image Classification" there, and compares with embedded texts.
    return "image-text" if tasks & IMAGE_TEXT_TASKS or "zeroshot" in name else "image"


def _load_yaml(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, loader) or {}  # noqa: S506 (both are safe loaders)


def _valid(rows: Any) -> bool:
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, list) and len(row) == 3 for row in rows)
        and all(isinstance(entry, str) for row in rows for entry in row)
    )


@hookimpl
def adapt_backbone(model: Any) -> Any:
    if installed.comes_from(model, "mmpretrain"):
        return resolve("mdpd_plugins.adapters.mmpretrain:MMPretrainAdapter")(model)
    return None


@hookimpl
def check_environment(report: EnvironmentReport) -> None:
    version = installed.version("mmpretrain")
    if version is None:
        report.note("mmpretrain", "not installed: the mmpretrain zoo has no backbones here", fix=EXTRA)
        return
    usable = _check_mmcv(report) and _check_import(report, version)
    _check_numpy(report)
    if installed.package_folder("pkg_resources") is None:
        report.note(
            "setuptools",
            f"setuptools {installed.version('setuptools') or '(not installed)'} brings no pkg_resources, so "
            "a config with `_base_ = 'mmpretrain::...'` cannot be read by mmengine",
            fix="write `_base_` as a relative path, or pip install 'setuptools<82'",
        )
    if usable:
        report.ok("mmpretrain", f"version {version}")


def _check_import(report: EnvironmentReport, version: str) -> bool:
    """Whether mmpretrain imports; without trying it, whether a combination known to fail is absent."""
    failure = installed.import_failure("import mmpretrain") if report.try_imports else None
    transformers = installed.version("transformers") or ""
    clash = installed.version("pycocotools") is not None and installed.release(transformers) >= (5,)
    if clash and (failure or not report.try_imports):
        report.problem(
            "pycocotools",
            "with pycocotools installed, mmpretrain loads its multimodal models, and those do not import "
            f"with transformers {transformers}{f': {failure}' if failure else ''}",
            fix="pip uninstall pycocotools",
        )
        return False
    if failure:
        report.problem("mmpretrain", f"version {version} does not import: {failure}", fix=_import_fix(failure))
    return failure is None


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
