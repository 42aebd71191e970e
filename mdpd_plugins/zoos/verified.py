"""What `mdpd verify` found of the built-in backbones: read from a file that ships with the package, never guessed.

`tools/coverage.py` writes that file from results of the conformance kit. A capability stands there only if its check
ran on that backbone and passed; a backbone that is not there, such as another plugin's, has none to show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mdpd_plugins.cache import add, recall
from mdpd_plugins.registry import ConfigError, Registered, closest

FILE = Path(__file__).with_name("verified.json")
DISTRIBUTION = "mdpd-plugins"
HERE = "verified_here"  # name in the cache
# What a backbone is made of, and what the kit changes in it: what its results depend on.
DEPENDS = (
    *("torch", "transformers", "mmpretrain", "mmcv-lite", "open_clip_torch", "timm", "torchvision", "mmengine", "peft"),
    *("numpy", DISTRIBUTION),
)
PARTS = ("image", "text")

# Capability -> the kit's check that exercises it, and what it says.
CAPABILITIES = {
    "attention": ("attention", "attention maps over all tokens can be captured from every block"),
    "norms": ("norm_parameters", "has affine normalisation layers, which training moves"),
    "exact-gradients": ("norm_gradients", "block-wise recomputation gives autograd's gradients bit for bit"),
    "distillation": ("distillation", "both phases train; norms and output layer change and nothing else"),
    "new-head": ("head", "takes another number of outputs"),
    "export": ("export", "exported and read back by the zoo's own loader with the same outputs"),
    "odd-size": ("odd_size", "takes images of other and oblong sizes"),
    "padding": ("padding", "padding of texts does not change the outputs"),
}


@dataclass(frozen=True)
class Verification:
    """What was found of one backbone.

    Attributes:
        status: "pass", "fail" or "unavailable".
        capabilities: names of `CAPABILITIES`; as "image:export" where a backbone has several parts.
    """

    status: str
    capabilities: tuple[str, ...]

    def has(self, capability: str) -> bool:
        """Whether the backbone, or a part of it, has the capability ("text:padding": that part)."""
        return any(c == capability or c.partition(":")[2] == capability for c in self.capabilities)


@dataclass(frozen=True)
class Verified:
    """All that was found, and the versions of the libraries it was found with."""

    versions: Mapping[str, str]
    backbones: Mapping[str, Verification]

    def get(self, registered: Registered) -> Verification | None:
        """What was found of a backbone; None for one that was not run, or is another distribution's."""
        return self.backbones.get(registered.name) if registered.distribution == DISTRIBUTION else None

    def other_versions(self) -> list[str]:
        """Libraries installed here in another version than the one that was verified, in words."""
        found = []
        for name, version in self.versions.items():
            try:
                here = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
            if here != version and name != DISTRIBUTION:
                found.append(f"{name} {version} (here: {here})")
        return found


@lru_cache(maxsize=1)
def load(path: Path = FILE) -> Verified:
    """Read the file; nothing is verified where there is none."""
    if not path.is_file():
        return Verified({}, {})
    content = json.loads(path.read_text(encoding="utf-8"))
    backbones = {
        name: Verification(group["status"], tuple(group["capabilities"]))
        for group in content["groups"]
        for name in group["names"]
    }
    return Verified(content["versions"], backbones)


def remember_row(row: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    """Keep what `mdpd verify` found of one backbone on this machine, in the user's cache."""
    about = {"status": row["status"], "capabilities": exercised(row["checks"]), "versions": dict(versions)}
    add(HERE, row["name"], about)


def found_here(name: str, versions: Mapping[str, str]) -> Verification | None:
    """What `mdpd verify` found of a backbone here, with the versions that are installed now; None if it was not run."""
    try:
        known = recall(HERE)[name]
        if known["versions"] != dict(versions):
            return None
        return Verification(str(known["status"]), tuple(map(str, known["capabilities"])))
    except (KeyError, TypeError):
        return None


def check_capability(name: str) -> str:
    """`name`, if it is a capability, or one of a part as in "text:padding".

    Raises:
        ConfigError: it is none; with the closest.
    """
    known = [*CAPABILITIES, *(f"{part}:{capability}" for part in PARTS for capability in CAPABILITIES)]
    if name not in known:
        near = known if ":" in name else CAPABILITIES
        raise ConfigError(f"there is no capability {name!r}; {closest(name, near)}")
    return name


def exercised(checks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The capabilities that follow from a row's checks: those whose check ran and passed."""
    by_check = {check: capability for capability, (check, _) in CAPABILITIES.items()}
    found = []
    for key, outcome in checks.items():
        part, _, check = key.rpartition("/")
        if check in by_check and outcome["status"] == "pass":
            found.append(f"{part}:{by_check[check]}" if part else by_check[check])
    return sorted(found)


def as_text(rows: list[dict[str, Any]], versions: Mapping[str, str]) -> str:
    """The file's content from rows of `mdpd verify`: backbones of which the same was found stand together."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in rows:
        groups.setdefault((row["status"], tuple(exercised(row["checks"]))), []).append(row["name"])
    listed = [{"status": s, "capabilities": list(c), "names": sorted(names)} for (s, c), names in groups.items()]
    listed.sort(key=lambda group: group["names"][0])
    return json.dumps({"versions": dict(versions), "groups": listed}, indent=0) + "\n"


__all__ = [
    "CAPABILITIES",
    "FILE",
    "Verification",
    "Verified",
    "as_text",
    "check_capability",
    "exercised",
    "found_here",
    "load",
    "remember_row",
]
