"""Image folders: classes from sub-folders, native splits, and every way a folder can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdpd_plugins.data import load_source
from mdpd_plugins.registry import ConfigError, DataError, DataWarning


def add_images(folder: Path, count: int, value: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("L", (5, 4), value + number).save(folder / f"{number}.png")


def config(root: Path, **options: Any) -> dict[str, Any]:
    return {"type": "image_folder", "root": str(root), **options}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_images(tmp_path / "data" / "cat", 20, 0)
    add_images(tmp_path / "data" / "dog", 20, 100)
    return tmp_path / "data"


def test_sub_folders_are_classes(root: Path) -> None:
    parts = [load_source(config(root), split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [28, 4, 8]
    assert parts[0].classes == ("cat", "dog")
    for part in parts:
        for image, label in part:
            assert (image.mode, image.size) == ("RGB", (5, 4))
            assert (image.getpixel((0, 0))[0] >= 100) == bool(label)
    assert {np.asarray(image)[0, 0, 0] for part in parts for image, _ in part} == {
        *range(20),
        *range(100, 120),
    }


def test_native_split_folders_and_nested_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        add_images(tmp_path / split / "a", 4)
        add_images(tmp_path / split / "b" / "deeper", 4)
    assert len(load_source(config(tmp_path), "train")) == 8
    assert len(load_source(config(tmp_path, val_size=2), "val")) == 2


def test_classes_may_have_the_names_of_splits(tmp_path: Path) -> None:
    add_images(tmp_path / "train", 10)
    add_images(tmp_path / "car", 10)
    assert load_source(config(tmp_path), "train").classes == ("car", "train")


def test_given_classes_set_the_order(root: Path) -> None:
    assert load_source(config(root, classes=["dog", "cat"]), "train").classes == ("dog", "cat")
    with pytest.raises(DataError, match="dog.*label 'dog' is not one of the 2 classes"):
        load_source(config(root, classes=["cat", "cow"]), "train")
    with pytest.raises(DataError, match="class 'cow' has no folder"):
        load_source(config(root, classes=["cat", "cow", "dog"]), "train")


def test_missing_and_empty_folders_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        load_source(config(tmp_path / "gone"), "train")
    (root / "owl").mkdir()
    (root / "owl" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="class folder .*owl holds no image"):
        load_source(config(root), "train")
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match="flat holds no class folders"):
        load_source(config(tmp_path / "flat"), "train")


def test_a_file_that_is_no_image_stops_before_training(root: Path) -> None:
    (root / "cat" / "broken.jpg").write_bytes(b"this is text")
    with pytest.raises(DataError, match=r"broken\.jpg does not decode"):
        load_source(config(root), "train")


def cut_short(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_all_broken_images_are_named_before_the_start(root: Path) -> None:
    for path in (root / "cat" / "short.png", root / "cat" / "short.jpg", root / "dog" / "short.webp"):
        cut_short(path)
    (root / "dog" / "text.gif").write_text("no picture")
    with pytest.raises(DataError) as caught:
        load_source(config(root), "val")
    message = str(caught.value)
    assert message.startswith("4 of 44 examples cannot be used: ") and message.count("does not decode") == 4
    assert all(name in message for name in ("short.png", "short.jpg", "short.webp", "text.gif"))
    assert "data.source.on_broken='skip'" in message and "\n" not in message


def test_broken_images_can_be_left_out_and_are_counted(root: Path) -> None:
    cut_short(root / "cat" / "short.png")
    with pytest.warns(UserWarning, match=r"1 of 41 examples of the train data are left out.*short\.png does not"):
        parts = [load_source(config(root, on_broken="skip"), split) for split in ("train", "val", "test")]
    # The same examples as without the broken one.
    (root / "cat" / "short.png").unlink()
    for part, split in zip(parts, ("train", "val", "test"), strict=True):
        assert [*map(str, part.inputs)] == [*map(str, load_source(config(root), split).inputs)]
    assert parts[0].left_out == 1 and "1 of 41 examples of the train data were left out" in parts[0].description


def test_what_cannot_be_left_out(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_broken='ship' does not exist: did you mean 'skip'"):
        load_source(config(root, on_broken="ship"), "train")
    with pytest.raises(ConfigError, match="verify=False turns that off"):
        load_source(config(root, on_broken="skip", verify=False), "train")
    other = tmp_path / "other"
    for name in "ab":
        (other / name).mkdir(parents=True)
        cut_short(other / name / "short.png")
    with pytest.raises(DataError, match=r"no example of the train data can be used: .*a/short\.png .*b/short\.png"):
        load_source(config(other, on_broken="skip"), "train")
    assert len(load_source(config(other, verify=False, val_size=0, test_size=0), "train")) == 2


def test_other_pixel_formats_become_rgb(tmp_path: Path) -> None:
    add_images(tmp_path / "a", 1)
    (tmp_path / "b").mkdir()
    Image.fromarray(np.full((4, 4), 51_400, np.uint16)).save(tmp_path / "b" / "sixteen_bits.png")
    Image.new("RGBA", (4, 4), (9, 8, 7, 50)).save(tmp_path / "b" / "transparent.png")
    Image.new("P", (4, 4)).save(tmp_path / "b" / "palette.png")
    turned = Image.new("RGB", (6, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    turned.save(tmp_path / "b" / "turned.jpg", exif=exif)
    source = load_source(config(tmp_path, val_size=0, test_size=0), "train")
    images = {Path(str(raw)).name: image for raw, (image, _) in zip(source.inputs, source, strict=True)}
    assert {image.mode for image in images.values()} == {"RGB"}
    assert images["sixteen_bits.png"].getpixel((0, 0)) == (200, 200, 200)
    assert images["transparent.png"].getpixel((0, 0)) == tuple(
        round(255 + (value - 255) * 50 / 255) for value in (9, 8, 7)
    )
    assert images["turned.jpg"].size == (2, 6)


def test_hidden_folders_are_no_data_wherever_they_lie(root: Path) -> None:
    add_images(root / ".ipynb_checkpoints", 3)
    add_images(root / "cat" / ".ipynb_checkpoints", 3)
    add_images(root / "cat" / "deeper" / ".cache", 3)
    assert sum(len(load_source(config(root), split)) for split in ("train", "val", "test")) == 40


def test_links_to_folders_are_followed_and_no_folder_is_read_twice(root: Path, tmp_path: Path) -> None:
    add_images(tmp_path / "elsewhere", 10, 50)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "round").symlink_to(root / "cat")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    train = load_source(config(root, val_size=1, test_size=1), "train")
    assert train.classes == ("cat", "dog", "fox") and len(train) == 20 + 10 + 20 + 10 - 2


@pytest.mark.parametrize(("train", "val"), [("Train", "VAL"), ("training", "Validation"), ("TRAIN", "valid")])
def test_names_of_splits_may_be_written_large(train: str, val: str, tmp_path: Path) -> None:
    for split in (train, val):
        add_images(tmp_path / split / "a", 4)
        add_images(tmp_path / split / "b", 4)
    assert len(load_source(config(tmp_path), "train")) == 8 == len(load_source(config(tmp_path), "val"))


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Val"), ("val", "test")])
def test_splits_without_class_folders_are_refused_unless_they_are_the_classes(names: Any, tmp_path: Path) -> None:
    for name in names:
        add_images(tmp_path / name, 20)
    with pytest.raises(DataError, match="are called like splits, but there is no train folder with class folders"):
        load_source(config(tmp_path), "train")
    assert load_source(config(tmp_path, classes=names), "train").classes == names


def test_pictures_beside_the_class_folders_are_counted_in_a_warning(root: Path) -> None:
    for name in ("z.png", "y.png", ".hidden.png"):
        Image.new("L", (5, 4)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    with pytest.warns(DataWarning, match=r"have no class and are left out \(2\): y\.png, z\.png"):
        assert len(load_source(config(root), "train")) == 28
