"""HuggingFace data sets from local paths, without touching the network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdpd_plugins.data import load_source
from mdpd_plugins.registry import ConfigError, DataError

datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_saved_data_set_with_class_names(tmp_path: Path) -> None:
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["9", "5"])})
    parts = {
        name: datasets.Dataset.from_dict(
            {"sentence": [f"{name} {i}" for i in range(n)], "label": [0, 1] * (n // 2)}, features
        )
        for name, n in (("train", 20), ("validation", 6))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    cfg = {"type": "huggingface", "path": str(tmp_path / "saved"), "text_column": "sentence"}
    source = load_source(cfg, "val")
    assert source.classes == ("9", "5")  # in the order of the column, although 5 < 9
    assert source[1] == ("validation 1", 1)
    assert len(load_source(cfg, "train")) == 20
    assert "saved" in source.description
    with pytest.raises(DataError, match="no split 'tset'"):
        load_source({**cfg, "splits": {"train": "train", "test": "tset"}}, "train")
    with pytest.raises(DataError, match=r"no column 'text'.*its columns: sentence, label"):
        load_source({**cfg, "text_column": "text"}, "train")
    with pytest.raises(ConfigError, match="is local; leave it out"):
        load_source({**cfg, "name": "sst2"}, "train")


def test_images_are_read_one_at_a_time_and_bad_ones_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    paths = [str(tmp_path / "grey.png")] * 5 + [str(tmp_path / "bad.png")]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    part = datasets.Dataset.from_dict({"image": paths, "label": [0, 1] * 3}, features)
    part.save_to_disk(str(tmp_path / "saved"))
    cfg = {"type": "huggingface", "path": str(tmp_path / "saved"), "image_column": "image"}
    whole = {**cfg, "val_size": 0, "test_size": 0}
    with pytest.raises(DataError, match=r"1 of 6 examples .*split train, row 5: image bad\.png does not decode"):
        load_source(whole, "train")
    source = load_source({**whole, "verify": False}, "train")
    image, label = source[1]
    assert (image.mode, image.getpixel((0, 0)), label, source.modality) == ("RGB", (77, 77, 77), 1, "image")
    with pytest.raises(DataError, match=r"bad\.png does not decode"):
        source[5]
    with pytest.warns(UserWarning, match=r"1 of 6 examples of the train data are left out"):
        assert len(load_source({**whole, "on_broken": "skip"}, "train")) == 5
    with pytest.raises(DataError, match="'label' does not hold images"):
        load_source({**cfg, "image_column": "label", "label_column": "image"}, "train")


def test_local_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    content = "first,second,label\n" + "".join(f"a{i},b{i},{i / 2}\n" for i in range(10))
    (folder / "train.csv").write_text(content)
    columns = {"text_column": "first", "text_pair_column": "second", "label_kind": "float"}
    for path in (folder / "train.csv", folder):
        cfg = {"type": "huggingface", "path": str(path), **columns, "val_size": 0, "test_size": 0}
        source = load_source(cfg, "train")
        assert source[3] == (("a3", "b3"), 1.5)
    with pytest.raises(DataError, match=r"gone\.csv does not exist on this machine"):
        load_source({"type": "huggingface", "path": str(tmp_path / "gone.csv"), **columns}, "train")


def test_several_labels_with_class_names(tmp_path: Path) -> None:
    inner = datasets.ClassLabel(names=["x", "y", "z"])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Sequence(inner)})
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[2, 0], []]}, features)
    part.save_to_disk(str(tmp_path / "saved"))
    cfg = {
        "type": "huggingface",
        "path": str(tmp_path / "saved"),
        "text_column": "text",
        "label_kind": "multi",
    }
    source = load_source({**cfg, "val_size": 0, "test_size": 0}, "train")
    assert list(source) == [("a", [0, 2]), ("b", [])]


def test_unlabelled_rows_are_refused(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features)
    part.save_to_disk(str(tmp_path / "saved"))
    cfg = {"type": "huggingface", "path": str(tmp_path / "saved"), "text_column": "text"}
    with pytest.raises(DataError, match="row 1: label '-1' is not one of the 2 classes"):
        load_source(cfg, "train")


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="'no-such/data-set-here' is not available from the hub"):
        load_source({"type": "huggingface", "path": "no-such/data-set-here", "text_column": "text"}, "train")


def test_array_images_round_trip(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    part = datasets.Dataset.from_dict({"image": [Image.fromarray(pixels)] * 2, "label": ["a", "b"]}, features)
    part.save_to_disk(str(tmp_path / "saved"))
    cfg = {"type": "huggingface", "path": str(tmp_path / "saved"), "image_column": "image"}
    source = load_source({**cfg, "val_size": 0, "test_size": 0}, "train")
    assert np.array_equal(np.asarray(source[0][0]), pixels)
