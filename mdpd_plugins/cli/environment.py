"""What `mdpd doctor` checks itself: our own requirements, and the traps that belong to no single zoo."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from mdpd_plugins.registry import EnvironmentReport
from mdpd_plugins.registry.imports import ended
from mdpd_plugins.versions import DISTRIBUTION

TOGETHER = "pip install --force-reinstall torch torchvision, both in one command and from one index"

# Imports torch and torchvision, and calls one compiled operator. Run in a process of its own, because doctor must not
# load torch. Each step is tried by itself so that the report can say which one fails.
PROBE = """
import json
result = {}
try:
    import torch
    result["torch"] = torch.__version__
    result["cuda"] = torch.version.cuda
    result["device"] = torch.cuda.is_available()
except BaseException as error:
    result["torch_error"] = f"{type(error).__name__}: {error}"
else:
    try:
        import torchvision
        result["torchvision"] = torchvision.__version__
        from torchvision.ops import nms
        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except BaseException as error:
        result["torchvision_error"] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(result))
"""


def package_table() -> list[dict[str, Any]]:
    """Our own requirements and what is installed: name, required, extra, installed, ok."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for text in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if requirement.name == DISTRIBUTION or extra in {"test", "demo", "all"}:
            continue
        installed = _version(requirement.name)
        satisfied = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        rows[requirement.name, extra] = {
            "name": requirement.name,
            "required": str(requirement.specifier),
            "extra": extra,
            "installed": installed,
            "ok": satisfied,
        }
    return list(rows.values())


def _extra(requirement: Requirement) -> str:
    """The extra that brings a requirement, or "" for one that is always needed."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return ""
    for extra in importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        if requirement.marker.evaluate({"extra": extra}):
            return str(extra)
    return ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_core(report: EnvironmentReport) -> None:
    """The torch that torchvision wants, and mmengine's resume. Imports nothing."""
    _check_declared_torch(report)
    _check_resume(report)


def probed(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What `PROBE` found: torch, cuda, device, torchvision where they worked; torch_error, torchvision_error if not."""
    printed, failure = ended(process)
    try:
        result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        return {"torch_error": failure or "it ended Python without a word"}
    return result


def report_probe(report: EnvironmentReport, result: dict[str, Any]) -> None:
    """Turn what a probe found into findings."""
    if "torch_error" in result:
        report.problem("torch", f"it cannot be imported: {result['torch_error']}", fix="pip install torch torchvision")
        return
    build = f"CUDA {result['cuda']}" if result.get("cuda") else "no CUDA"
    device = "a GPU can be used" if result.get("device") else "no GPU can be used"
    report.ok("torch", f"{result['torch']} ({build}; {device})")
    error = result.get("torchvision_error")
    if error is None:
        report.ok("torchvision", str(result["torchvision"]))
    elif "nms" in error or "operator" in error:
        report.problem(
            "torchvision",
            f"its compiled operators were built for another torch than {result['torch']} (typically a "
            f"CPU-only torch beside the package index's torchvision): {error}",
            fix=TOGETHER,
        )
    else:
        report.problem("torchvision", f"it cannot be imported: {error}", fix=TOGETHER)


def _check_declared_torch(report: EnvironmentReport) -> None:
    """Compare the torch that torchvision's own metadata asks for with the one installed."""
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return  # reported as a missing package
    for text in importlib.metadata.requires("torchvision") or []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            report.problem(
                "torch and torchvision",
                f"torchvision {vision} wants torch{requirement.specifier}, installed is {torch}",
                fix=TOGETHER,
            )
    flavours = [version.partition("+")[2] for version in (torch, vision)]
    if all(flavours) and flavours[0] != flavours[1]:
        report.problem(
            "torch and torchvision", f"torch {torch} and torchvision {vision} are of two builds", fix=TOGETHER
        )


def _check_resume(report: EnvironmentReport) -> None:
    from packaging.version import Version

    mmengine, torch = _version("mmengine"), _version("torch")
    if mmengine and torch and Version(mmengine) <= Version("0.10.7") and Version(torch) >= Version("2.6"):
        report.note(
            "resuming with mmengine",
            f"mmengine {mmengine} cannot resume the checkpoints of its own runner with torch {torch}, which "
            "reads tensors and plain values only; this project's own runs can be resumed",
            fix="resume with `mdpd train --resume`; do not load files from others with weights_only=False",
        )
