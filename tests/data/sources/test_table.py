"""Tables: texts, pairs and images; class names, indices, several labels, numbers; and what can be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mdpd_plugins.data import Source, load_source
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError


def load(path: Path, content: str, **options: Any) -> Source:
    path.write_text(content, encoding="utf-8")
    cfg = {
        "type": "table",
        "path": str(path),
        "label_column": "label",
        "val_size": 0,
        "test_size": 0,
        **options,
    }
    if "image_column" not in options:
        cfg.setdefault("text_column", "text")
    return load_source(cfg, "train")


def json_lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_csv_of_class_names(tmp_path: Path) -> None:
    source = load(tmp_path / "t.csv", '\ufefftext,label,other\n"one, quoted",pos,1\ntwo,neg,2\nthree,pos,3\n')
    assert source.classes == ("neg", "pos")
    assert list(source) == [("one, quoted", 1), ("two", 0), ("three", 1)]
    assert (source.modality, source.label_kind) == ("text", "single")
    assert "t.csv" in source.description


def test_tsv_of_text_pairs(tmp_path: Path) -> None:
    content = "text\tsecond\tlabel\na\tb\tyes\nc\td\tno\n"
    source = load(tmp_path / "t.tsv", content, text_pair_column="second")
    assert list(source) == [(("a", "b"), 1), (("c", "d"), 0)]


def test_integer_labels_are_class_names_in_numerical_order(tmp_path: Path) -> None:
    source = load(tmp_path / "t.csv", "text,label\na,10\nb,2\nc,1\n")
    assert source.classes == ("1", "2", "10")
    assert [label for _, label in source] == [2, 1, 0]


def test_integer_labels_are_indices_into_given_names_unless_those_are_integers(tmp_path: Path) -> None:
    content = json_lines({"text": "a", "label": 1}, {"text": "b", "label": "neg"}, {"text": "c", "label": 0})
    source = load(tmp_path / "t.jsonl", content, classes=["neg", "pos"])
    assert [label for _, label in source] == [1, 0, 0]
    with pytest.raises(DataError, match=r"line 3: label '0' is not one of the 2 classes"):
        load(tmp_path / "u.jsonl", content.replace('"neg"', "2"), classes=["1", "2"])


def test_several_labels_as_lists_and_as_one_field(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": ["x", "z"]}, {"text": "b", "label": []}, {"text": "c", "label": ["y"]}]
    source = load(tmp_path / "t.jsonl", json_lines(*rows), label_kind="multi")
    assert source.classes == ("x", "y", "z")
    assert [label for _, label in source] == [[0, 2], [], [1]]
    field = load(tmp_path / "t.csv", "text,label\na,x; z\nb,\nc,y\n", label_kind="multi", label_separator=";")
    assert list(field) == list(source)


def test_numbers_to_predict(tmp_path: Path) -> None:
    source = load(tmp_path / "t.csv", "text,label\na,1.5\nb,-2\n", label_kind="float")
    assert source.classes == ()
    assert list(source) == [("a", 1.5), ("b", -2.0)]
    with pytest.raises(DataError, match="line 3: label 'nan' is not a finite number"):
        load(tmp_path / "u.csv", "text,label\na,1.5\nb,nan\n", label_kind="float")


def test_images_by_path_relative_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("L", (4, 6), 200).save(tmp_path / "pictures" / "grey.png")
    Image.new("RGB", (3, 3), (1, 2, 3)).save(tmp_path / "colour.png")
    content = "file,label\npictures/grey.png,a\ncolour.png,b\n"
    source = load(tmp_path / "t.csv", content, image_column="file")
    image, label = source[0]
    assert (image.mode, image.size, image.getpixel((0, 0)), label) == ("RGB", (4, 6), (200, 200, 200), 0)
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        load(tmp_path / "u.csv", "file,label\ngone.png,a\ncolour.png,b\n", image_column="file")


def test_fields_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    assert len(load(tmp_path / "t.csv", f"text,label\n{'long ' * 40_000},a\nb,b\n")[0][0]) == 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,lbl\na,b\n", r"no column 'label' \(did you mean 'lbl'\?\); its columns: text, lbl"),
        ("", r"no column 'text'.*its columns: none"),
        ("text,label\n", "holds no rows"),
        ("text,label\na,b\nc\n", "line 3: 1 fields, but the header has 2"),
        ("text,label\na,\nb,c\n", "line 2: the label is empty"),
        ('text,label\n"a,b\n', "not valid CSV"),
    ],
)
def test_broken_csv(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path / "t.csv", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": "b"}\n{"text": \n', "line 2: not valid JSON"),
        ('{"text": "a", "label": "b"}\n{"text": "a"}\n', "line 2 has no column 'label'"),
        ("[1, 2]\n", "line 1: a JSON object is needed"),
        (
            '{"text": 3, "label": "b"}\n{"text": "a", "label": "c"}\n',
            "line 1: column 'text' holds int, not text",
        ),
        ('{"text": "a", "label": ["b"]}\n', "line 1: the label is a list.*label_kind='multi'"),
    ],
)
def test_broken_json_lines(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path / "t.jsonl", content)


def test_labels_of_other_splits_must_be_known_to_training(tmp_path: Path) -> None:
    for name, labels in (("train", "ab"), ("test", "ac")):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"t,{x}\n" for x in labels))
    cfg = {
        "type": "table",
        "train": str(tmp_path / "train.csv"),
        "test": str(tmp_path / "test.csv"),
        "text_column": "text",
        "label_column": "label",
    }
    with pytest.raises(DataError, match=r"test\.csv, line 3: label 'c' is not one of the 2 classes"):
        load_source(cfg, "train")


def test_wrong_configurations(tmp_path: Path) -> None:
    content = "text,label\na,x\nb,y\n"
    with pytest.raises(ConfigError, match="name text_column, image_column, or both"):
        load(tmp_path / "t.csv", content, text_column=None)
    with pytest.raises(ConfigError, match="label_kind='multiple'.*did you mean 'multi'"):
        load(tmp_path / "t.csv", content, label_kind="multiple")
    with pytest.raises(ConfigError, match="at least two classes, but there is x"):
        load(tmp_path / "t.csv", "text,label\na,x\nb,x\n")
    with pytest.raises(ConfigError, match="'x' more than once"):
        load(tmp_path / "t.csv", content, classes=["x", "x", "y"])
    with pytest.raises(ConfigError, match="either path= .* or train="):
        load(tmp_path / "t.csv", content, train=str(tmp_path / "t.csv"))
    with pytest.raises(DataError, match=r"tables end in \.csv"):
        load(tmp_path / "t.xls", content)
    columns = {"type": "table", "text_column": "text", "label_column": "label"}
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        load_source({**columns, "path": str(tmp_path / "gone.csv")}, "train")
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        load_source({**columns, "path": str(tmp_path / "latin.csv")}, "train")


def test_an_empty_text_is_refused_with_all_lines_or_left_out(tmp_path: Path) -> None:
    content = 'text,label\none,x\n"",y\ntwo,y\n"  ",x\n'
    with pytest.raises(DataError, match=r"2 of 4 examples .*t\.csv, line 3: the text is empty; .*line 5: the text is"):
        load(tmp_path / "t.csv", content)
    with pytest.warns(UserWarning, match="2 of 4 examples of the train data are left out"):
        source = load(tmp_path / "t.csv", content, on_broken="skip")
    assert list(source) == [("one", 0), ("two", 1)] and source.left_out == 2
    assert source.place(1) == f"{tmp_path / 't.csv'}, line 4"
    # JSON's null is what CSV's nothing is. Of a pair one text is enough.
    rows = json_lines({"text": None, "second": "b", "label": "x"}, {"text": "a", "second": "", "label": "y"})
    assert list(load(tmp_path / "t.jsonl", rows, text_pair_column="second")) == [(("", "b"), 0), (("a", ""), 1)]
    with pytest.raises(DataError, match="line 1: the text is empty"):
        load(tmp_path / "t.jsonl", rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_separates_the_fields_of_a_csv_is_found(tmp_path: Path, separator: str) -> None:
    lines = [["id", "text", "label"], ["1", '"a, b; c"', "x"], ["2", "d", "y"]]
    content = "".join(separator.join(line) + "\n" for line in lines)
    assert list(load(tmp_path / "t.csv", content)) == [("a, b; c", 0), ("d", 1)]
    assert list(load(tmp_path / "u.csv", content, delimiter=separator)) == [("a, b; c", 0), ("d", 1)]


def test_the_columns_that_are_named_decide_what_separates(tmp_path: Path) -> None:
    content = "text;label;a,b,c,d,e\none;x;1,2,3,4,5\ntwo;y;1,2,3,4,5\n"
    assert list(load(tmp_path / "t.csv", content)) == [("one", 0), ("two", 1)]


ROWS = {"text": ["one", "two", "three"], "label": ["x", "y", "x"], "other": [1, 2, 3]}


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    cfg = {"type": "table", "path": str(path), "text_column": "text", "label_column": "label"}
    parquet.write_table(pyarrow.table(ROWS), path)
    source = load_source({**cfg, "val_size": 0, "test_size": 0}, "train")
    assert list(source) == [("one", 0), ("two", 1), ("three", 0)]
    with pytest.raises(DataError, match="no column 'txt'.*its columns: text, label, other"):
        load_source({**cfg, "text_column": "txt"}, "train")
    parquet.write_table(pyarrow.table({**ROWS, "label": [1.0, float("nan"), None]}), path)
    with pytest.raises(DataError, match=r"t\.parquet, row 2: the label is empty"):
        load_source(cfg, "train")
    path.write_text("no parquet")
    with pytest.raises(DataError, match=r"t\.parquet is not readable parquet"):
        load_source(cfg, "train")


def test_excel(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(list(ROWS))
    for row in [*zip(*ROWS.values(), strict=True), (None, None, None), ("four", 3, None), (None, "x", 5)]:
        book.active.append(row)
    book.create_sheet("second").append(["not this"])
    path = tmp_path / "t.xlsx"
    book.save(path)
    cfg = {"type": "table", "path": str(path), "text_column": "text", "label_column": "label"}
    with pytest.raises(DataError, match=r"1 of 5 examples .*t\.xlsx, row 7: the text is empty"):
        load_source(cfg, "train")
    with pytest.warns(UserWarning, match="left out"):
        source = load_source({**cfg, "val_size": 0, "test_size": 0, "on_broken": "skip"}, "train")
    assert list(source) == [("one", 1), ("two", 2), ("three", 1), ("four", 0)] and source.classes == ("3", "x", "y")
    path.write_text("no workbook")
    with pytest.raises(DataError, match=r"t\.xlsx is not a readable xlsx file"):
        load_source(cfg, "train")


def test_a_package_that_reads_a_kind_of_table_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, ending in (("pyarrow", "parquet"), ("openpyxl", "xlsx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependencyError, match=rf"needs the package '{package}'.*mdpd-plugins\[data\]"):
            load(tmp_path / f"t.{ending}", "")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 columns 'label'; rename"):
        load(tmp_path / "t.csv", "text,label,label\na,x,y\n")
