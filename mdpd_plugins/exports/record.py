"""`mdpd.json`: what an exported folder is, for whoever loads it again through its zoo.

The zoo's own files say how to build the network. They do not say which backbone it is, what its outputs mean, or at
which length texts were cut; this one does. The zoos' loaders take no notice of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.registry.errors import CheckpointError, ConfigError

RECORD_FILE = "mdpd.json"
GIVEN = "given"


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
    columns: dict[str, str] = field(default_factory=dict)

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
        """Put the record into an existing folder."""
        # Sorted: a config's own order is not kept where it is read again.
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


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
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(ExportRecord)}
        given = {key: value for key, value in raw.items() if key in known}
        given["classes"] = tuple(map(str, given["classes"]))
        given["size"] = tuple(given["size"]) if given.get("size") else None
        given.setdefault("resize", "stretch")  # records that do not say are older than the choice
        return ExportRecord(**given)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(path)!r} is not a record of an export ({error}): export again with `mdpd export WORK_DIR OUT`"
        ) from error


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


__all__ = ["GIVEN", "RECORD_FILE", "ExportRecord", "check_replaceable", "read_record", "record_of"]
