"""MMPretrain's data set classes as a source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdpd_plugins.data import load_source
from mdpd_plugins.registry import ConfigError, DataError

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (4, 4), number).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_custom_dataset(root: Path) -> None:
    cfg = {"type": "mmpretrain", "dataset": {"type": "CustomDataset", "data_root": str(root)}}
    source = load_source(cfg, "train")
    assert (source.classes, len(source), source.label_kind) == (("cat", "dog"), 14, "single")
    image, label = source[0]
    assert (image.mode, image.size, label) == ("RGB", (4, 4), 0)


def test_multi_label_data_set(root: Path) -> None:
    rows = [{"img_path": "cat/1.png", "gt_label": [0, 2]}, {"img_path": "dog/2.png", "gt_label": [1]}]
    content = {"metainfo": {"classes": ["a", "b", "c"]}, "data_list": rows}
    (root / "labels.json").write_text(json.dumps(content))
    dataset = {"type": "MultiLabelDataset", "data_root": str(root), "ann_file": "labels.json"}
    cfg = {"type": "mmpretrain", "train": dataset, "val": dataset}
    source = load_source(cfg, "val")
    assert [label for _, label in source] == [[0, 2], [1]]
    assert np.asarray(source[1][0])[0, 0].tolist() == [2, 2, 2]


def test_wrong_configurations(root: Path) -> None:
    with pytest.raises(ConfigError, match="no data set type 'CustomDatset': did you mean 'CustomDataset'"):
        load_source({"type": "mmpretrain", "dataset": {"type": "CustomDatset"}}, "train")
    with pytest.raises(ConfigError, match="either dataset= .* or train="):
        load_source({"type": "mmpretrain"}, "train")
    with pytest.raises(DataError, match="cannot build the train data set 'CustomDataset'"):
        cfg = {"type": "mmpretrain", "dataset": {"type": "CustomDataset", "data_root": str(root / "gone")}}
        load_source(cfg, "train")


def test_a_scope_left_behind_by_an_earlier_run_does_not_hide_the_classes(root: Path) -> None:
    from mmengine.registry import DefaultScope

    cfg = {"type": "mmpretrain", "dataset": {"type": "CustomDataset", "data_root": str(root)}}
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert len(load_source(cfg, "train")) == 14
