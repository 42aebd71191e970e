"""Splits: disjoint, stratified, repeatable, and sizes that say what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mdpd_plugins.data import load_source
from mdpd_plugins.registry import ConfigError, DataError


def write_table(path: Path, labels: list[Any]) -> Path:
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": x}) + "\n" for i, x in enumerate(labels)))
    return path


def config(path: Path, **options: Any) -> dict[str, Any]:
    return {"type": "table", "path": str(path), "text_column": "text", "label_column": "label", **options}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.jsonl", ["common"] * 300 + ["rare"] * 60 + ["odd"] * 40)


def texts(cfg: dict[str, Any], split: str) -> list[str]:
    return [text for text, _ in load_source(cfg, split)]


def test_splits_are_disjoint_and_cover_everything(table: Path) -> None:
    parts = {split: texts(config(table), split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 280, "val": 40, "test": 80}
    assert len({text for part in parts.values() for text in part}) == 400


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_split_holds_each_class_in_its_share(table: Path, split: str) -> None:
    source = load_source(config(table), split)
    counts = Counter(source.classes[label] for _, label in source)
    for name, share in (("common", 0.75), ("rare", 0.15), ("odd", 0.1)):
        assert counts[name] == pytest.approx(share * len(source), abs=1)


def test_the_same_configuration_gives_the_same_split_and_another_seed_another(table: Path) -> None:
    assert texts(config(table), "train") == texts(config(table), "train")
    assert texts(config(table), "test") != texts(config(table, split_seed=1), "test")


def test_train_size_takes_a_stratified_part_and_leaves_the_rest_alone(table: Path) -> None:
    small, large = texts(config(table, train_size=40), "train"), texts(config(table, train_size=80), "train")
    assert len(small) == 40 and len(large) == 80
    assert set(small) < set(large)
    assert texts(config(table, train_size=40), "test") == texts(config(table), "test")
    source = load_source(config(table, train_size=40), "train")
    assert Counter(label for _, label in source)[source.classes.index("rare")] == pytest.approx(6, abs=1)


def test_shares_and_counts(table: Path) -> None:
    cfg = config(table, train_size=0.5, val_size=0.25, test_size=100)
    assert [len(load_source(cfg, split)) for split in ("train", "val", "test")] == [100, 100, 100]


def test_native_splits_are_used_and_missing_ones_cut_from_training(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.jsonl", ["a", "b"] * 50)
    test = write_table(tmp_path / "test.jsonl", ["a", "b"] * 10)
    cfg = {k: v for k, v in config(train).items() if k != "path"} | {"train": str(train), "test": str(test)}
    sizes = [len(load_source(cfg, split)) for split in ("train", "val", "test")]
    assert sizes == [90, 10, 20]
    assert len(load_source({**cfg, "test_size": 4}, "test")) == 4
    assert len(load_source({**cfg, "val_size": 0}, "train")) == 100


def test_no_test_set_is_cut_beside_a_validation_set_unless_asked_for(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.jsonl", ["a", "b"] * 50)
    cfg = {k: v for k, v in config(train).items() if k != "path"} | {"train": str(train), "val": str(train)}
    assert len(load_source(cfg, "train")) == 100
    with pytest.raises(DataError, match="no test data: give test_size"):
        load_source(cfg, "test")
    assert len(load_source({**cfg, "test_size": 20}, "test")) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 1000}, "there are 280 examples"),
        ({"train_size": 0}, "takes nothing"),
        ({"train_size": -1}, "whole number of examples"),
        ({"test_size": 1.5}, "share between 0 and 1"),
        ({"test_size": 400}, "leave nothing"),
        ({"val_size": True}, "val_size=True"),
        ({"split_seed": "x"}, "split_seed='x'"),
    ],
)
def test_wrong_sizes_are_refused(table: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_source(config(table, **options), "train")


def test_unknown_split_type_and_key_name_the_closest(table: Path) -> None:
    with pytest.raises(ConfigError, match="'valid' does not exist: .*'val'"):
        load_source(config(table), "valid")
    with pytest.raises(ConfigError, match="did you mean 'table'"):
        load_source({**config(table), "type": "tables"}, "train")
    with pytest.raises(ConfigError, match="no key 'txt_column': did you mean 'text_column'"):
        load_source(config(table, txt_column="text"), "train")
    with pytest.raises(ConfigError, match="did you mean 'train_size'"):
        load_source(config(table, trainsize=3), "train")
    with pytest.raises(ConfigError, match="needs the key 'label_column'"):
        load_source({"type": "table", "path": str(table), "text_column": "text"}, "train")
    with pytest.raises(ConfigError, match="has no type; choose one of"):
        load_source({"path": str(table)}, "train")


def test_classes_that_are_the_same_number_have_the_same_order_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"x,{label}\n" for label in ("02", "1", "002", "01", "2", "001")))
    code = (
        "import sys; from mdpd_plugins.data.sources.table import open_table; "
        "print(*open_table(path=sys.argv[1], text_column='text', label_column='label')['train'].classes)"
    )
    run = [sys.executable, "-c", code, str(path)]
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            run, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["001", "01", "1", "002", "02", "2"]


def table_of(tmp_path: Path, rows: list[Any], kind: str = "single", **more: list[Any]) -> dict[str, Any]:
    files = {name: str(write_table(tmp_path / f"{name}.jsonl", labels)) for name, labels in more.items()}
    train = str(write_table(tmp_path / "train.jsonl", rows))
    columns = {"text_column": "text", "label_column": "label", "label_kind": kind}
    return {"type": "table", "train": train, **files, **columns}


def test_an_integer_is_no_index_where_classes_are_numbers(tmp_path: Path) -> None:
    source = table_of(tmp_path, ["0.0", "1.0", "10.0", "2.0"], val=["2", "1"])  # "2" would be 10.0
    with pytest.raises(DataError, match=r"label '2' is not one of the 4 classes \(did you mean '2\.0'\?\)"):
        load_source(source, "val")
    named = table_of(tmp_path, ["cat", "dog", "v1.0"], val=[1, 0, 2])
    assert load_source(named, "val").labels == [1, 0, 2]


def test_marks_of_several_labels_are_not_taken_for_indices(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: the labels \[1, 0, 1\] are a 0 or a 1 for each class"):
        load_source(table_of(tmp_path, [[1, 0, 1], [0, 1, 0]], "multi"), "train")
    rows = [[0, 1], [1, 0], [0, 1], [1, 0]] * 5
    assert load_source(table_of(tmp_path, rows, "multi"), "train").classes == ("0", "1")


def test_a_list_written_as_text_is_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a list that was written as text: write them with '\|' between them"):
        load_source(table_of(tmp_path, ["['x', 'y']", "['x']"], "multi"), "train")
