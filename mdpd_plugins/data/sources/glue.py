"""Source type `glue`: GLUE's nine tasks by name, from the hub or from a local folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mdpd_plugins.data.source import Source
from mdpd_plugins.data.sources.columns import Columns, check_columns, open_columns
from mdpd_plugins.data.sources.glue_tasks import TASKS, GlueTask
from mdpd_plugins.data.sources.hub import import_datasets, label_names, load_parts
from mdpd_plugins.registry import ConfigError, DataError, closest

HUB = "nyu-mll/glue"
# The original Microsoft corpus, which GLUE's script for MRPC starts from; its test labels are public.
_MRPC_TRAIN, _MRPC_TEST, _MRPC_DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"


@dataclass(frozen=True)
class _Pool:
    values: Mapping[str, Sequence[Any]]  # "text", "text_pair" where there are two, and "label"
    where: Callable[[int], str]  # row -> words that lead the reader there


def open_glue(
    *, name: str, root: str | None = None, mismatched: bool = False, revision: str | None = None
) -> dict[str, Source]:
    """Open one of GLUE's tasks. Its validation data is what is evaluated on: labels of GLUE's test data are hidden.

    Args:
        name: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli.
        root: a local folder instead of the hub's nyu-mll/glue. In it, or in a sub-folder named after the task (CoLA,
            SST-2, ... or cola, sst2, ...), lie GLUE's own files (train.tsv and dev.tsv; for MRPC also the
            msr_paraphrase_*.txt that it is made from), what `datasets` wrote with `save_to_disk`, or parquet files
            (train-00000-of-00001.parquet, validation-...).
        mismatched: for mnli, validate on other genres than those trained on.
        revision: the version on the hub (a tag or commit; name one to make a run repeatable).

    Returns:
        "train" and "val" -> source; for MRPC's original files "train", "test", and "val" if dev_ids.tsv is there.

    Raises:
        ConfigError: an unknown task, or options that do not go together.
        DataError: the data is not available, or is not what it should be; files are named.
        MissingDependencyError: `datasets` is not installed (GLUE's own files do without).
    """
    if name not in TASKS:
        raise ConfigError(f"GLUE has no task {name!r}: {closest(str(name), TASKS)}")
    if mismatched and name != "mnli":
        raise ConfigError(f"mismatched=True is for mnli; {name} has one validation set")
    if root is not None and revision is not None:
        raise ConfigError("revision= chooses a version on the hub, but root= is local; leave one of them out")
    task = TASKS[name]
    kinds = ("_mismatched" if mismatched else "_matched") if name == "mnli" else ""
    if root is None:
        pools = _from_datasets(task, None, load_parts(import_datasets(), HUB, name, revision), kinds)
        origin = HUB + (f" at revision {revision}" if revision else "")
    else:
        pools = _from_folder(name, task, Path(root).expanduser(), kinds)
        origin = "local files"
    columns = Columns(
        "label", "text", "text_pair" if len(task.texts) > 1 else None, kind="single" if task.classes else "float"
    )
    sources = open_columns(
        {pool: part.values for pool, part in pools.items()},
        columns,
        classes=task.classes or None,
        separator=None,
        where=lambda pool, i: pools[pool].where(i),
        image_roots={},
        description=f"GLUE's task {task.folder}{kinds.replace('_', ', ')} ({origin}). Wang et al., ICLR 2019; licence "
        "and origin are those of the task's own data set.",
    )
    return {pool: replace(source, metric=task.metric) for pool, source in sources.items()}


def _from_folder(name: str, task: GlueTask, root: Path, kinds: str) -> dict[str, _Pool]:
    if not root.is_dir():
        raise DataError(f"GLUE folder {root} does not exist; correct data root=")
    homes = [folder for folder in (root / task.folder, root / name, root) if folder.is_dir()]
    for home in homes:
        if (home / "train.tsv").is_file():
            return {"train": _read(home / "train.tsv", task), "val": _read(home / f"dev{kinds}.tsv", task)}
        if name == "mrpc" and (home / _MRPC_TRAIN).is_file():
            return _mrpc(home, task)
        parquet = _parquet_files(home)
        if (home / "dataset_dict.json").is_file() or parquet:
            parts = load_parts(import_datasets(), str(home), data_files=parquet or None)
            return _from_datasets(task, home, parts, kinds)
    original = f" or {_MRPC_TRAIN}" if name == "mrpc" else ""
    raise DataError(
        f"{root} holds no GLUE data for {name}: expected {task.folder}/train.tsv and {task.folder}/dev{kinds}.tsv"
        f"{original}, {name}/dataset_dict.json (from save_to_disk), or {name}/train-*.parquet; it holds "
        f"{', '.join(sorted(p.name for p in root.iterdir())[:8]) or 'nothing'}"
    )


def _parquet_files(home: Path) -> dict[str, list[str]]:
    """Split name -> files, as the hub names them: train-00000-of-00001.parquet."""
    found: dict[str, list[str]] = {}
    for path in sorted(home.glob("*.parquet")):
        found.setdefault(re.sub(r"-\d+-of-\d+$", "", path.stem), []).append(str(path))
    return found


def _from_datasets(task: GlueTask, home: Path | None, parts: Mapping[str, Any], kinds: str) -> dict[str, _Pool]:
    datasets, what = import_datasets(), str(home or HUB)
    pools = {}
    for pool, split in (("train", "train"), ("val", f"validation{kinds}")):
        if split not in parts:
            raise DataError(f"{what} ({task.folder}) has no split {split!r}; it has {', '.join(parts)}")
        part = parts[split]
        check_columns((*task.texts, "label"), part.column_names, f"{what} ({task.folder}), split {split}")
        values = {key: part[column][:] for key, column in zip(("text", "text_pair"), task.texts, strict=False)}
        values["label"] = label_names(datasets, part.features["label"], part["label"][:])
        pools[pool] = _Pool(values, partial("{} ({}), split {}, row {}".format, what, task.folder, split))
    return pools


def _read(path: Path, task: GlueTask) -> _Pool:
    """GLUE's own files: tab-separated, never quoted."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; it belongs to GLUE's task {task.folder}")
    try:
        with path.open(encoding="utf-8-sig") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); GLUE's own file is") from error
    numbered = list(enumerate(rows, start=1))
    places = [column for column in task.tsv if isinstance(column, int)]
    width = max(places, default=-1) + 1
    if not places:
        header = numbered.pop(0)[1] if numbered else []
        check_columns(map(str, task.tsv), header, str(path))
        places, width = [header.index(str(column)) for column in task.tsv], len(header)
    # A few rows of QQP are broken in GLUE's own file; its loaders leave them out, too.
    kept = [(number, row) for number, row in numbered if len(row) >= width]
    if len(kept) < 0.99 * len(numbered):
        raise DataError(
            f"{path}: {len(numbered) - len(kept)} of {len(numbered)} rows have fewer than {width} fields separated by "
            f"tabs; it is not GLUE's file"
        )
    keys = ("text", "text_pair", "label") if len(places) == 3 else ("text", "label")
    values = {key: [row[place] for _, row in kept] for key, place in zip(keys, places, strict=True)}
    lines = [number for number, _ in kept]
    return _Pool(values, lambda i: f"{path}, line {lines[i]}")


def _mrpc(home: Path, task: GlueTask) -> dict[str, _Pool]:
    """MRPC as its authors gave it out. GLUE's choice of validation pairs is in dev_ids.tsv, pairs of sentence ids."""
    pools = {"train": _read(home / _MRPC_TRAIN, task), "test": _read(home / _MRPC_TEST, task)}
    if (home / _MRPC_DEV_IDS).is_file():
        chosen = {tuple(line.split("\t")) for line in (home / _MRPC_DEV_IDS).read_text().splitlines()}
        ids = _read(home / _MRPC_TRAIN, replace(task, tsv=("#1 ID", "#2 ID", "Quality"))).values
        in_dev = [pair in chosen for pair in zip(ids["text"], ids["text_pair"], strict=True)]
        whole = pools["train"]
        pools |= {"train": _part(whole, [not dev for dev in in_dev]), "val": _part(whole, in_dev)}
    return pools


def _part(pool: _Pool, chosen: Sequence[bool]) -> _Pool:
    rows = [i for i, wanted in enumerate(chosen) if wanted]
    values = {key: [column[i] for i in rows] for key, column in pool.values.items()}
    return _Pool(values, lambda i: pool.where(rows[i]))


__all__ = ["HUB", "open_glue"]
