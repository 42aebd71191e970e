"""`mdpd.json`: what an exported folder is, for whoever loads it again through its zoo.

The zoo's own files say how to build the network. They do not say which backbone it is, what its outputs mean, or at
which length texts were cut; this one does. The zoos' loaders take no notice of it.

It also holds the SHA-256 of every file that a loader may read, and one of itself. So what was damaged, lost, or put in
from another export is found and named. That is against accidents: whoever changes a folder on purpose can sign it anew.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.files import read_signed, sha256, without_home, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError

RECORD_FILE = "mdpd.json"
GIVEN = "given"
AGAIN = "export again with `mdpd export WORK_DIR OUT`"
# What zoos' loaders look for: weights, settings, vocabularies. A card or a licence beside them changes nothing.
READ = {".json", ".py", ".safetensors", ".bin", ".pth", ".pt", ".txt", ".model", ".jinja", ".npz", ".npy", ".h5"}
READ |= {".onnx", ".pt2", ".msgpack", ".gguf", ".vocab", ".bpe", ".spm", ".yaml", ".yml"}
NOTES = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRecord:
    """What a folder of an exported model holds.

    Attributes:
        backbone: registered name, `<zoo>/<model>`. options: what it was built with.
        text_backbone, text_options: the same of the text tower, where the folder holds a pair of towers.
        modality: "image", "text" or "image-text".
        task: kind of label ("single", "multi", "float", "pair"), or "language". classes: names of outputs, in order.
        size: (height, width) of prepared images, pixels; None for other modalities.
        resize: how pictures of another shape are fitted: "auto", as the zoo does it, or "stretch"; "given" where a
            transform of the user's own prepared pictures, which no file holds.
        max_length: tokens that texts are cut to; None for other modalities.
        columns: what the columns of the table that it was trained on were called: "text", "text_pair", "image" -> name.
        eval_split: the split that `metrics` were measured on.
        method: how it was trained. weights: where training started from.
        network: the file that outputs come from, where that is not the zoo's own: see `network`.
        files: path in the folder -> SHA-256; empty in exports made before they were kept.
    """

    backbone: str
    options: dict[str, Any]
    modality: str
    task: str
    classes: tuple[str, ...]
    size: tuple[int, int] | None = None
    resize: str = "auto"
    max_length: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    eval_split: str = "val"
    method: str = ""
    weights: str = ""
    text_backbone: str = ""
    text_options: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    network: str = ""

    @property
    def zoo(self) -> str:
        """The part of the backbone's name before the slash; "" for a model of no zoo."""
        zoo, slash, _ = self.backbone.partition("/")
        return zoo if slash else ""

    @property
    def loaded_resize(self) -> str:
        """What a loader passes to `Adapter.prepare`: of a transform that no file holds, nothing."""
        return "auto" if self.resize == GIVEN else self.resize

    def write(self, folder: Path) -> None:
        """Put the record into a folder that holds everything else of the export."""
        files = {name: sha256(folder / name) for name in _read_by_loaders(folder)}
        # Options and origins may be paths. A home folder's is written so that it is still found, but not whose it is.
        write_record(folder, _without_home({**asdict(self), "files": files}))

    def check_files(self, folder: Path) -> None:
        """Compare a folder with the files that were exported. Nothing is compared of an export without their sums.

        Raises:
            CheckpointError: a file that a loader may read differs, is missing, or was added.
        """
        if not self.files:
            NOTES.warning(
                f"note: {folder} was exported before files were signed, so damage is not noticed; `mdpd export "
                f"WORK_DIR OUT` makes a signed one"
            )
            return
        found = _read_by_loaders(folder)
        missing = [name for name in self.files if name not in found]
        try:
            differing = [name for name in self.files if name in found and sha256(folder / name) != self.files[name]]
        except OSError as error:
            raise CheckpointError(f"a file of the export {str(folder)!r} cannot be read: {error}") from error
        added = [name for name in found if name not in self.files]
        said = [
            f"{', '.join(names)} {what}"
            for names, what in (
                (missing, "missing"),
                (differing, f"not what {RECORD_FILE} says (damaged, or of another export)"),
                (added, "not part of it, and its loader might read that: move it elsewhere"),
            )
            if names
        ]
        if said:
            raise CheckpointError(f"the export {str(folder)!r} is not whole: {'; '.join(said)}. {AGAIN}")


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Sign a record and put it into an existing folder."""
    # Sorted: a config's own order is not kept where it is read again.
    write_signed(folder / RECORD_FILE, json.loads(json.dumps(content, sort_keys=True)))


def _without_home(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_home(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_home(v) for v in value]
    return without_home(value) if isinstance(value, str) else value


def _read_by_loaders(folder: Path) -> list[str]:
    """The files of an export but for its record, its card, notes of its owner, and hidden ones: sorted paths in it."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in READ and path.is_file())
    names = (p.as_posix() for p in inside if not any(part.startswith(".") for part in p.parts))
    return sorted(name for name in names if name != RECORD_FILE)


def read_record(folder: str | Path) -> ExportRecord:
    """The record of an exported folder.

    Raises:
        ConfigError: there is no such folder, or it has no record.
        CheckpointError: its record cannot be read.
    """
    folder = Path(folder)
    path = folder / RECORD_FILE
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is no folder: give one that training wrote, such as WORK_DIR/export")
    if not path.is_file():
        inside = folder / "export"
        hint = f"{str(folder)!r} has no {RECORD_FILE}, so it does not say what its outputs mean: "
        if (inside / RECORD_FILE).is_file():
            raise ConfigError(f"{hint}it is a work directory, and its export is {str(inside)!r}")
        raise ConfigError(f"{hint}export again with `mdpd export WORK_DIR OUT`")
    try:
        raw = read_signed(path, since="files")
        known = {f.name for f in fields(ExportRecord)}
        given = {key: value for key, value in raw.items() if key in known}
        given["classes"] = tuple(map(str, given["classes"]))
        given["size"] = tuple(given["size"]) if given.get("size") else None
        given.setdefault("resize", "stretch")  # records that do not say are older than the choice
        return ExportRecord(**given)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{str(path)!r} is not a record of an export ({error}): {AGAIN}") from error


def check_replaceable(folder: Path) -> None:
    """An export replaces an earlier one, and nothing else.

    Raises:
        ConfigError: the folder holds something that is not an export.
    """
    used = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if used and not (folder / RECORD_FILE).is_file():
        raise ConfigError(
            f"export_dir={str(folder)!r} holds something that is no earlier export, and an export replaces the "
            f"whole folder: give one that does not exist yet"
        )


def record_of(adapter: Adapter, *, max_length: int | None = None, **about: Any) -> ExportRecord:
    """The record of a trained and faded backbone.

    Args:
        max_length: tokens that texts were cut to in training, if fewer than the model takes.
        about: fields of the record that the training knows: metrics, eval_split, method, columns.
    """
    kind, classes = adapter.labels or ("single", adapter.class_names(adapter.num_outputs))
    try:
        limit = None if adapter.modality == "image" else adapter.text_transform().max_length
    except (ConfigError, CheckpointError):  # a text model without a tokenizer: whoever uses it has one
        limit = None
    lengths = [n for n in (max_length, limit) if n is not None]
    return ExportRecord(
        **adapter.parts,
        modality=adapter.modality,
        task=kind,
        classes=tuple(classes),
        size=None if adapter.modality == "text" else adapter.image_transform().size,
        resize=GIVEN if adapter.given_transform is not None else adapter.resize,
        max_length=None if limit is None else min(lengths),
        weights=adapter.origin,
        **about,
    )


__all__ = ["GIVEN", "RECORD_FILE", "ExportRecord", "check_replaceable", "read_record", "record_of", "write_record"]
