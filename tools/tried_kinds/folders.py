"""Folders and tables of people's own data."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.load import load_source
from mdpd_plugins.data.sources.image_folder import open_image_folder
from mdpd_plugins.data.sources.table import open_table
from mdpd_plugins.registry.errors import DataWarning
from tools.tried_kinds.case import case, refusal


def _picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6, 3), value, np.uint8)).save(path)
    return path


def _read(root: Path) -> str:
    """What is found below a folder, in words."""
    found = open_image_folder(root=str(root))
    return "; ".join(f"{pool}: {len(part.inputs)} of {', '.join(part.classes)}" for pool, part in found.items())


@case(
    "The test folder has no pictures of one class, so that all later classes could move up by one.",
    "timm 957",
    "the labels of b and c are 1 and 2 in both splits",
)
def a_class_is_missing_in_a_split(folder: Path) -> str:
    for split, classes in (("train", "abc"), ("test", "bc")):
        for name in classes:
            _picture(folder / split / name / "1.png")
    found = open_image_folder(root=str(folder))
    same = found["train"].labels == [0, 1, 2] and found["test"].labels == [1, 2]
    return "the labels of b and c are 1 and 2 in both splits" if same else str(found["test"].labels)


@case(
    "A class folder is empty in the training data, where nothing can be learned of it.",
    "torchvision 4925",
    "refused by name",
)
def an_empty_class_folder(folder: Path) -> str:
    for name in "ab":
        _picture(folder / name / "1.png")
    (folder / "nothing").mkdir()
    return refusal(lambda: _read(folder), "nothing", "holds no image")


@case(
    "A notebook left hidden folders with copies of pictures beside and inside the class folders.",
    "mmpretrain 507",
    "train: 2 of a, b",
    at_first="the copies inside a class folder were training pictures",
)
def hidden_folders(folder: Path) -> str:
    for name in "ab":
        _picture(folder / name / "1.png")
    _picture(folder / ".ipynb_checkpoints" / "1.png")
    _picture(folder / "a" / ".ipynb_checkpoints" / "1-checkpoint.png")
    return _read(folder)


@case(
    "Pictures lie behind links to folders, inside a class folder and as one.",
    "torchvision 1580",
    "train: 4 of a, b, c",
    at_first="those behind a link inside a class folder were left out silently",
)
def links_to_folders(folder: Path) -> str:
    elsewhere = _picture(folder / "elsewhere" / "2.png").parent
    for name in "ab":
        _picture(folder / "data" / name / "1.png")
    (folder / "data" / "a" / "more").symlink_to(elsewhere)
    (folder / "data" / "c").symlink_to(elsewhere)
    (folder / "data" / "a" / "round").symlink_to(folder / "data" / "a")
    return _read(folder / "data")


@case(
    "Splits are folders called Train and Val.",
    "datasets 4839",
    "train: 2 of a, b; val: 2 of a, b",
    at_first="Train and Val were the two classes",
)
def splits_written_large(folder: Path) -> str:
    for split in ("Train", "Val"):
        for name in "ab":
            _picture(folder / split / name / "1.png")
    return _read(folder)


@case(
    "Splits are folders, but the pictures in them lie in no class folders.",
    "datasets 7880",
    "refused by name",
    at_first="test and train were the two classes",
)
def splits_without_classes(folder: Path) -> str:
    for split in ("train", "test"):
        _picture(folder / split / "1.png")
    return refusal(lambda: _read(folder), "test, train", "called like splits", "classes=")


@case(
    "Some pictures lie beside the class folders, in none of them.",
    "datasets 5153",
    "left out, with a warning that counts them",
    at_first="left out silently",
)
def pictures_of_no_class(folder: Path) -> str:
    for name in ("a/1.png", "b/1.png", "stray.png"):
        _picture(folder / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = _read(folder)
    warned = [w for w in said if issubclass(w.category, DataWarning) and "(1): stray.png" in str(w.message)]
    return "left out, with a warning that counts them" if warned and found == "train: 2 of a, b" else f"{found}, {said}"


@case(
    "Class folders are numbers without leading zeros, so that the alphabet puts 10 before 2.",
    "deit 130",
    "train: 3 of 1, 2, 10",
)
def numbered_classes(folder: Path) -> str:
    for name in ("1", "2", "10"):
        _picture(folder / name / "1.png")
    return _read(folder)


@case(
    "The order of classes comes from a set, and changes from one process to the next.",
    "ProtTrans 37",
    "the same in eight processes",
    at_first="of names that are the same number (1 and 01), it changed with the process",
)
def classes_of_a_set(folder: Path) -> str:
    path = folder / "rows.csv"
    path.write_text("text,label\n" + "".join(f"x,{label}\n" for label in ("01", "1", "2", "02", "002")))
    code = (
        "import sys; from mdpd_plugins.data.sources.table import open_table; "
        "print(open_table(path=sys.argv[1], text_column='text', label_column='label')['train'].classes)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
        )
        for seed in range(8)
    ]
    orders = {process.communicate()[0] for process in started}
    return "the same in eight processes" if len(orders) == 1 and b"".join(orders) else f"{len(orders)} orders"


@case("Photographs are turned by an EXIF tag alone.", "torchvision 7977", "read upright")
def turned_by_exif(folder: Path) -> str:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.zeros((8, 20, 3), np.uint8)).save(folder / "1.jpg", exif=exif)
    return "read upright" if read_image(folder / "1.jpg").size == (8, 20) else "read lying"


@case("A grey picture has 16 bits a pixel, which Pillow clips to white.", "torchvision 2218", "256 levels of grey")
def sixteen_bits(folder: Path) -> str:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(ramp).save(folder / "1.png")
    return f"{len(np.unique(np.asarray(read_image(folder / '1.png'))))} levels of grey"


@case("File names end in .JPEG and .PNG.", "torchvision 552", "train: 2 of a, b")
def endings_written_large(folder: Path) -> str:
    _picture(folder / "a" / "1.PNG")
    _picture(folder / "b" / "1.JPEG")
    return _read(folder)


@case("One picture of a data set was cut short when it was copied.", "torchvision 138", "refused by name")
def a_picture_cut_short(folder: Path) -> str:
    for name in "ab":
        for number in range(8):
            _picture(folder / name / f"{number}.png", number)
    whole = (folder / "a" / "3.png").read_bytes()
    (folder / "a" / "3.png").write_bytes(whole[: len(whole) // 2])
    return refusal(lambda: load_source({"type": "image_folder", "root": str(folder)}, "train"), "3.png", "on_broken")


def _table(path: Path, text: str, encoding: str = "utf-8") -> dict:
    path.write_text(text, encoding=encoding)
    return open_table(path=str(path), text_column="text", label_column="label")


@case("Texts and labels of a table are the words null, NA and None.", "datasets 4467", "kept as words")
def words_that_mean_nothing(folder: Path) -> str:
    part = _table(folder / "rows.csv", "text,label\nnull,NA\nNone,b\nnan,NA\n")["train"]
    kept = part.classes == ("NA", "b") and list(part.inputs) == ["null", "None", "nan"]
    return "kept as words" if kept else f"{part.classes}, {list(part.inputs)}"


@case("A table from a spreadsheet begins with a byte order mark.", "pandas 4793", "the first column is found")
def byte_order_mark(folder: Path) -> str:
    part = _table(folder / "rows.csv", "text,label\nx,a\ny,b\n", "utf-8-sig")["train"]
    return "the first column is found" if list(part.inputs) == ["x", "y"] else str(list(part.inputs))


@case(
    "Labels became 1.0 and 2.0 where a cell was empty, and those of another split are still 1 and 2.",
    "pandas 28335",
    "refused by name",
    at_first="2 was taken for the third class, which was 10.0",
)
def integers_that_became_floats(folder: Path) -> str:
    (folder / "train.csv").write_text("text,label\na,0.0\nb,1.0\nc,10.0\nd,2.0\n", encoding="utf-8")
    (folder / "val.csv").write_text("text,label\na,2\nb,1\n", encoding="utf-8")
    files = {"train": str(folder / "train.csv"), "val": str(folder / "val.csv")}
    return refusal(lambda: open_table(**files, text_column="text", label_column="label"), "val.csv, line 2", "'2.0'")


@case(
    "Lists of labels were written to a CSV file, and come back as text.",
    "datasets 4673",
    "refused by name",
    at_first="each different list was a class of its own",
)
def lists_written_as_text(folder: Path) -> str:
    path = folder / "rows.csv"
    path.write_text("text,tags\na,\"['x', 'y']\"\nb,['x']\n", encoding="utf-8")
    columns = {"text_column": "text", "label_column": "tags", "label_kind": "multi"}
    return refusal(lambda: open_table(path=str(path), **columns), "line 2", "written as text")


@case(
    "Several labels are given as a 0 or a 1 for each class.",
    "transformers 7571",
    "refused by name",
    at_first="taken for indices, so that every example had the classes 0 and 1",
)
def marks_for_each_class(folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text('{"text": "a", "tags": [1, 0, 1]}\n{"text": "b", "tags": [0, 1, 0]}\n', encoding="utf-8")
    columns = {"text_column": "text", "label_column": "tags", "label_kind": "multi"}
    return refusal(lambda: open_table(path=str(path), **columns), "[1, 0, 1]", "for each class")
