"""From an exported folder to a model, by the loader of the zoo that the folder was written for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.storage.trust import trusting_remote_code, unattended
from mdpd_plugins.adapters.towers.pair import PAIR_FILE
from mdpd_plugins.exports import pair, registered
from mdpd_plugins.exports.exported import ExportedModel, Tensors
from mdpd_plugins.exports.network import through
from mdpd_plugins.exports.record import GIVEN, ExportRecord, read_record
from mdpd_plugins.registry import load_catalogue
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError, MDPDError, PluginError

MODALITIES = ("image", "text", "image-text")


def load_export(folder: str | Path, device: str | None = None, *, trust_remote_code: bool = False) -> ExportedModel:
    """Load an export, put it into eval mode and on a device.

    Args:
        folder: what training wrote (WORK_DIR/export), or `mdpd export`.
        device: "cpu", "cuda", "cuda:1" ...; by default a GPU if there is one.
        trust_remote_code: run Python code that lies in the folder, where the zoo's loader wants it.

    Raises:
        ConfigError: the folder is no export, or the device does not exist.
        CheckpointError: its files are not those that were exported, cannot be read, do not fit together, or want
            code of their own to run.
        MissingDependencyError: its zoo is not installed here.
    """
    where = _device(device)
    record = read_record(folder)
    record.check_files(Path(folder))
    with trusting_remote_code(trust_remote_code):
        exported = load_folder(Path(folder), record)
    if record.network:  # it runs where its runtime chooses; the zoo's model prepares inputs
        return through(exported, Path(folder) / record.network)
    exported.model.to(where)
    return exported


def load_folder(folder: Path, record: ExportRecord) -> ExportedModel:
    """Load the zoo's files of a folder that `record` describes: a whole export, or one part of it.

    Raises:
        CapabilityError: no loader is known for the record's modality.
        as `load_export` does.
    """
    if record.modality not in MODALITIES:
        raise CapabilityError(
            f"{str(folder)!r} holds a model of {record.modality!r} inputs, and only exports that read "
            f"{' or '.join(MODALITIES)} can be loaded here"
        )
    try:
        # Frameworks print which file they load; standard output is for results.
        with contextlib.redirect_stdout(io.StringIO()), unattended():
            exported = _loaded(folder, record)
    except MDPDError:
        raise
    except Exception as error:  # whatever a framework raises for files that are damaged or missing
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"{str(folder)!r} cannot be loaded ({type(error).__name__}: {reason}): export again with "
            f"`mdpd export WORK_DIR OUT`"
        ) from error
    exported.model.eval()
    return replace(exported, prepare=_refused) if record.resize == GIVEN else exported


def _refused(examples: Sequence[Any]) -> Tensors:
    raise ConfigError(
        "this export's pictures were prepared by a transform that was given to adapt(), which no file holds: load the "
        "model (mdpd_plugins.load) and prepare them with that transform yourself"
    )


def _loaded(folder: Path, record: ExportRecord) -> ExportedModel:
    if (folder / PAIR_FILE).is_file():
        return pair.load(folder, record, load_folder)
    found = load_catalogue().load_export(folder, record)
    if found is not None and not isinstance(found, ExportedModel):
        raise PluginError(f"a plugin's load_export gave {type(found).__name__}; an ExportedModel or None was expected")
    return found or registered.load(folder, record)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}): leave it out, or use 'cpu'") from error
    return device


__all__ = ["load_export", "load_folder"]
