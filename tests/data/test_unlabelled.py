"""Inputs without labels: where they come from, that they overlap with nothing, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mdpd_plugins.data import load_source, load_unlabelled
from mdpd_plugins.registry import ConfigError, DataError


@pytest.fixture
def table(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text_column": "text", "label_column": "label"}
    return {"type": "table", "path": str(path), **columns, "val_size": 10, "test_size": 10, "train_size": 12}


def unlabelled(cfg, data):
    return load_unlabelled(cfg, data, load_source(data, "train"))


def test_the_rest_is_what_no_split_takes(table):
    parts = {split: {text for text, _ in load_source(table, split)} for split in ("train", "val", "test")}
    rest = unlabelled({"type": "rest"}, table)
    assert len(rest) == 60 - 32 and not {text for text, _ in rest} & set.union(*parts.values())
    assert rest.label_kind == "none" and rest.classes == () and set(rest.labels) == {0}
    fewer = unlabelled({"type": "rest", "size": 5}, table)
    assert len(fewer) == 5 and {t for t, _ in fewer} < {t for t, _ in rest}
    with pytest.raises(ConfigError, match="takes all 40 examples .* lower train_size, or bring other data"):
        unlabelled({"type": "rest"}, {**table, "train_size": 40})


def test_groups_stay_whole_between_training_data_and_its_rest(tmp_path):
    for i in range(10):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    rows = [{"image": f"{i // 3}.png", "text": f"question {i}", "label": "ab"[i % 2]} for i in range(30)]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"type": "table", "path": str(path), "text_column": "text", "label_column": "label"}
    data |= {"image_column": "image", "train_size": 8, "val_size": 3, "test_size": 3}
    train, rest = load_source(data, "train"), unlabelled({"type": "rest"}, data)
    assert rest.modality == "image-text" and not {*train.groups} & {*rest.groups}


def test_folders_of_pictures_text_files_and_tables_need_no_labels(tmp_path, table):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(tmp_path / "pictures" / name)
    digits = {"type": "packaged", "name": "digits", "train_size": 20, "val_size": 10}
    pictures = unlabelled({"type": "images", "root": str(tmp_path / "pictures")}, digits)
    assert [image.size for image, _ in pictures] == [(7, 9), (7, 9)]

    (tmp_path / "texts.txt").write_text("one\n\n  \ntwo words\n", encoding="utf-8")
    texts = unlabelled({"type": "texts", "path": str(tmp_path / "texts.txt")}, table)
    assert [text for text, _ in texts] == ["one", "two words"] and texts.place(1).endswith("texts.txt, line 4")

    bare = tmp_path / "bare.csv"
    bare.write_text("text,other\nhello,1\nworld,2\n")
    found = unlabelled({"type": "table", "path": str(bare), "text_column": "text"}, table)
    assert sorted(text for text, _ in found) == ["hello", "world"]
    # Labels that are there are not looked at, whatever they are called.
    named = unlabelled({**{k: table[k] for k in ("type", "path", "text_column", "label_column")}, "size": 7}, table)
    assert len(named) == 7 and named.label_kind == "none"


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"type": "images", "root": "nowhere"}, DataError, "image folder nowhere does not exist"),
        ({"type": "texts", "path": "nowhere.txt"}, DataError, "text file nowhere.txt does not exist"),
        ({"type": "rest", "train_size": 3}, ConfigError, "'rest', which takes no key 'train_size' besides size"),
        ({"type": "texts", "path": "t", "val_size": 3}, ConfigError, "takes no val_size: give size"),
        ({"type": "packaged", "name": "digits"}, ConfigError, "holds images, but data.source holds texts"),
        ({"type": "rest", "size": 1000}, ConfigError, "there are 28 examples"),
        ({}, ConfigError, "has no type"),
    ],
)
def test_what_is_refused(table, cfg, error, message):
    with pytest.raises(error, match=message):
        unlabelled(cfg, table)


def test_an_empty_text_file_and_one_that_is_no_text(tmp_path, table):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="is empty: it holds no text"):
        unlabelled({"type": "texts", "path": str(tmp_path / "empty.txt")}, table)
    with pytest.raises(DataError, match="is not UTF-8"):
        unlabelled({"type": "texts", "path": str(tmp_path / "latin.txt")}, table)
