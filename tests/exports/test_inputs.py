"""What people hand to `mdpd predict` becomes examples, or one line that says what is wrong."""

from __future__ import annotations

import datetime
import json

import pytest
from running import image_folder

from mdpd_plugins.exports import Input, TableColumns, read_inputs
from mdpd_plugins.registry.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("pictures") / "p", count=2, classes=("one", "two"))


def names(given, modality="text", **options):
    return [i.name for i in read_inputs(given, modality, **options)]


def write(path, text):
    path.write_text(text)
    return str(path)


def test_images_come_from_files_folders_lines_and_tables_in_the_given_order(pictures, tmp_path):
    one = str(pictures / "two" / "01.png")
    rows = write(pictures / "rows.csv", "image,other\none/00.png,x\n")
    found = names([one, str(pictures), "-", rows], "image", lines=[f"{one}\n", "\n"])
    assert found == [one, *(f"{pictures}/{c}/0{i}.png" for c in ("one", "two") for i in (0, 1)), one, found[-1]]
    assert found[-1] == f"{pictures}/one/00.png"  # paths start from the table's folder
    (first,) = read_inputs([one], "image")
    assert first.read().mode == "RGB" and first.read().size == (44, 37)


def test_texts_come_as_they_are_from_lines_and_from_tables(tmp_path):
    csv = write(tmp_path / "t.csv", 'text,label\n"One, two.",a\nThree,b\n')
    found = names(["A text.", "word", "version 3.5", csv, "-"], lines=["first\n", "  \n", "second\n"])
    assert found == ["A text.", "word", "version 3.5", "One, two.", "Three", "first", "second"]


def test_columns_of_tables_can_be_named_and_pairs_read(tmp_path):
    rows = write(tmp_path / "t.jsonl", json.dumps({"q": "Who?", "a": "She."}) + "\n")
    assert read_inputs([rows], "text", TableColumns("q", "a")) == [Input("Who?", "text", "She.")]
    known = TableColumns(known={"text": "q", "text_pair": "a"})  # as the export's record has it
    assert read_inputs([rows], "text", known) == [Input("Who?", "text", "She.")]
    assert read_inputs([rows], "text", TableColumns(known={"text": "a"})) == [
        Input("She.", "text", others={"q": "Who?"})
    ]
    assert read_inputs([rows], "text", TableColumns("q", "a"))[0].read() == ("Who?", "She.")
    assert names([rows], columns=TableColumns(text="a")) == ["She."]


def test_a_text_longer_than_any_file_name_is_a_text():
    assert names(["word " * 5000]) == ["word " * 5000]
    assert names(["a" * 5000]) == ["a" * 5000]


@pytest.mark.parametrize(
    ("given", "modality", "error", "message"),
    [
        (["nowhere.png"], "image", DataError, "there is no image file 'nowhere.png'"),
        (["A sentence about it."], "image", DataError, "this export reads images, and there is no image file"),
        (["{folder}/empty"], "image", DataError, "holds no image"),
        (["{folder}/broken.png"], "image", DataError, "broken.png does not decode"),
        (["{folder}/no_rows.csv"], "image", DataError, "is empty: it holds no rows"),
        (["{folder}/texts.csv"], "image", DataError, "has no column 'image' .*its columns: text, label"),
        (["{folder}/gone.csv"], "text", DataError, "gone.csv does not exist"),
        (["photo.jpg"], "text", ConfigError, "reads texts, and 'photo.jpg' is the name of an image"),
        (["{folder}/lines.txt"], "text", ConfigError, "give its lines with `-`"),
        (["{folder}/empty"], "text", ConfigError, "exists as a file or folder"),
        ([" "], "text", DataError, "an empty text"),
        (["-"], "text", DataError, "there is nothing to predict in '-'"),
        (["{folder}/numbers.jsonl"], "text", DataError, "line 1: column 'text' holds int, not text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, given, modality, error, message):
    (tmp_path / "empty").mkdir()
    for name, text in {
        "broken.png": "no picture",
        "no_rows.csv": "image\n",
        "texts.csv": "text,label\nx,y\n",
        "lines.txt": "a\nb\n",
        "numbers.jsonl": '{"text": 3}\n',
    }.items():
        write(tmp_path / name, text)
    with pytest.raises(error, match=message):
        read_inputs([item.format(folder=tmp_path) for item in given], modality)


@pytest.mark.parametrize(
    ("columns", "modality", "message"),
    [
        (TableColumns(text="t"), "image", "--text-column is for exports that read texts"),
        (TableColumns(image="i"), "text", "--image-column is for exports that read images"),
        (TableColumns(text_pair="p"), "text", "--text-pair-column is for tables"),
    ],
)
def test_columns_that_the_export_cannot_read_are_refused(columns, modality, message):
    with pytest.raises(ConfigError, match=message):
        read_inputs(["some text"], modality, columns)


def test_a_near_file_is_named(pictures):
    with pytest.raises(DataError, match="did you mean '01.png'"):
        read_inputs([str(pictures / "one" / "01.jpg")], "image")


def test_a_table_without_the_known_column_may_have_the_usual_one_and_else_is_asked_for(tmp_path):
    known = TableColumns(known={"text": "sentence"})
    usual = write(tmp_path / "usual.csv", "text;id\nA.;1\n")
    assert read_inputs([usual], "text", known) == [Input("A.", "text", others={"id": "1"})]
    other = write(tmp_path / "other.csv", "id,review\n1,A.\n")
    with pytest.raises(DataError, match=r"no column 'sentence' or 'text' .*its columns: id, review\. Say which"):
        read_inputs([other], "text", known)


def test_all_that_cannot_be_used_is_named_or_left_out(pictures, tmp_path):
    content = (pictures / "one" / "00.png").read_bytes()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "c.png").write_bytes(content)
    with pytest.raises(DataError, match=r"2 of 3 inputs cannot be used: .*a\.png does not.*b\.png does.*--skip-broken"):
        read_inputs([str(tmp_path)], "image")
    with pytest.warns(UserWarning, match="2 of 3 inputs cannot be used and are left out"):
        assert names([str(tmp_path)], "image", skip_broken=True) == [str(tmp_path / "c.png")]
    rows = write(tmp_path / "t.csv", 'text,id\nA.,1\n"",2\n" ",3\n')
    with pytest.raises(DataError, match=r"2 of 3 inputs cannot be used: .*line 3: it is empty; .*line 4: it is empty"):
        read_inputs([rows], "text")
    with pytest.warns(UserWarning, match="are left out"):
        assert [i.others for i in read_inputs([rows], "text", skip_broken=True)] == [{"id": "1"}]


def test_other_columns_are_plain_values(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = {
        "text": ["A."],
        "day": [datetime.date(2020, 1, 2)],
        "raw": [b"123"],
        "n": [float("nan")],
        "l": [[1, None]],
    }
    parquet.write_table(pyarrow.table(values), tmp_path / "t.parquet")
    (found,) = read_inputs([str(tmp_path / "t.parquet")], "text")
    assert found.others == {"day": "2020-01-02", "raw": "3 bytes", "n": None, "l": [1, None]}
    assert json.loads(json.dumps(found.others)) == found.others
