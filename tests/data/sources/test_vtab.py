"""VTAB-1k by name, from a small folder in the usual layout; and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mdpd_plugins.data import load_source
from mdpd_plugins.data.sources.vtab import CLASSES
from mdpd_plugins.registry import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight pictures of svhn to train on, two for validation, three for test."""
    home = tmp_path / "vtab-1k" / "svhn"
    lines: dict[str, list[str]] = {"train800": [], "val200": [], "test": []}
    for part, count in (("train800", 8), ("val200", 2), ("test", 3)):
        folder = "test" if part == "test" else "train"
        (home / "images" / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            name = f"images/{folder}/{part[:2]}{i:05}.jpg"
            Image.new("RGB", (6, 4), (20 * i, 0, 0)).save(home / name)
            lines[part].append(f"{name} {i % 10}")
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for part, rows in lines.items():
        (home / f"{part}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path / "vtab-1k"


def config(root: Path, **options: Any) -> dict[str, Any]:
    return {"type": "vtab", "name": "svhn", "root": str(root), **options}


def test_for_tuning_and_for_final_numbers(root: Path) -> None:
    sizes = {split: len(load_source(config(root), split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 8, "val": 2, "test": 3}
    full = {split: load_source(config(root, full=True), split) for split in ("train", "val", "test")}
    assert {split: len(source) for split, source in full.items()} == {"train": 10, "val": 3, "test": 3}
    source = full["train"]
    image, label = source[3]
    assert (image.size, label, source.classes[3], len(source.classes)) == ((6, 4), 3, "3", 10)
    assert (source.modality, source.augment, source.label_kind) == ("image", "none", "single")
    assert "VTAB-1k's task svhn" in source.description


def test_tuning_does_without_the_test_data(root: Path) -> None:
    (root / "svhn" / "test.txt").unlink()
    assert len(load_source(config(root), "val")) == 2
    with pytest.raises(DataError, match=r"lacks .*test\.txt; expected ROOT/svhn/ with train800\.txt"):
        load_source(config(root, full=True), "train")


@pytest.mark.parametrize("name", CLASSES)
def test_every_task_is_read_with_its_last_class(root: Path, name: str) -> None:
    home = root / name
    (root / "svhn").rename(home)
    last = CLASSES[name] - 1
    for file in home.glob("*.txt"):
        pictures = [row.split()[0] for row in file.read_text().splitlines()]
        file.write_text("\n".join(f"{picture} {last}" for picture in pictures))
    source = load_source({"type": "vtab", "name": name, "root": str(root)}, "train")
    assert (source[0][1], len(source.classes), f"VTAB-1k's task {name}" in source.description) == (last, last + 1, True)


def test_all_nineteen_tasks_are_known() -> None:
    natural = ["cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397"]
    specialised = ["patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"]
    clevr, dsprites, norb = (
        ["clevr_count", "clevr_dist"],
        ["dsprites_loc", "dsprites_ori"],
        ["smallnorb_azi", "smallnorb_ele"],
    )
    names = [*natural, *specialised, *clevr, "dmlab", "kitti", *dsprites, *norb]
    counts = [100, 102, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9]
    assert CLASSES == dict(zip(names, counts, strict=True))


def test_what_a_user_may_get_wrong(root: Path) -> None:
    home = root / "svhn"
    with pytest.raises(ConfigError, match="no task 'cifar100': did you mean 'cifar'"):
        load_source(config(root, name="cifar100"), "train")
    with pytest.raises(ConfigError, match="needs the key 'root'"):
        load_source({"type": "vtab", "name": "svhn"}, "train")
    with pytest.raises(
        DataError, match="task 'dtd' is not in .*: there is no folder .*expected ROOT/dtd/ with train800"
    ):
        load_source(config(root, name="dtd"), "train")
    train = (home / "train800.txt").read_text()

    def refused(content: str, said: str) -> None:
        (home / "train800.txt").write_text(content)
        with pytest.raises(DataError, match=said):
            load_source(config(root), "train")

    refused("images/train/tr00000.jpg 10\n", r"train800\.txt, line 1: class 10, but svhn has 0 to 9")
    refused("\nimages/train/tr00000.jpg\n", r"train800\.txt, line 2: .* is no picture and class")
    refused("", "the train data is empty")
    (home / "images" / "train" / "tr00003.jpg").unlink()
    refused(train, r"train800\.txt names .*tr00003\.jpg, which does not exist")
    (home / "images" / "train" / "tr00003.jpg").write_text("no picture")
    refused(train, r"tr00003\.jpg does not decode")
    (home / "train800.txt").unlink()
    with pytest.raises(DataError, match=r"lacks .*train800\.txt"):
        load_source(config(root), "val")
