"""`mdpd predict` and `mdpd eval`, as people run them on exports of small backbones."""

from __future__ import annotations

import io
import json
import warnings

import pytest
from exporting import export, table
from running import image_folder, text_table

from mdpd_plugins.cli.main import main
from mdpd_plugins.registry import DataWarning


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with `images` and `texts`, each an exported run, and the data they were made for."""
    base = tmp_path_factory.mktemp("base")
    root = image_folder(base / "pictures")
    export(base / "images", "oc-image", data={"source": {"type": "image_folder", "root": str(root)}})
    metrics = export(base / "texts", "hf-minilm", data=table(text_table(base / "texts.csv")))[1]
    (base / "metrics.json").write_text(json.dumps(metrics))
    return base


@pytest.fixture
def run(base, capsys, monkeypatch):
    monkeypatch.chdir(base)

    def call(*arguments):
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_images_of_a_folder_are_predicted_as_json(run, base):
    status, out, _ = run("predict", "images/export", "pictures/dark", "--format", "json", "--batch-size", 4)
    rows = json.loads(out)
    assert status == 0 and len(rows) == 10
    assert rows[0]["input"] == "pictures/dark/00.png"
    assert {row["label"] for row in rows} <= {"bright", "dark", "striped"}


def test_lines_of_standard_input_are_predicted(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("red and round\n\nlate\n"))
    status, out, _ = run("predict", "texts/export", "-", "--format", "jsonl", "--top-k", 2)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [row["input"] for row in rows] == ["red and round", "late"]
    assert all(len(row["top"]) == 2 for row in rows)


def test_a_table_is_printed_by_default_and_a_file_written_whole(run, tmp_path):
    status, out, _ = run("predict", "texts/export", "red and round", "--device", "cpu")
    assert status == 0 and "red and round" in out and "probability" in out
    status, out, _ = run("predict", "texts/export", "texts.csv", "--format", "csv", "--out", tmp_path / "rows.csv")
    assert (status, out) == (0, "")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 45
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_a_tables_other_columns_stay_beside_the_predictions(run, tmp_path):
    (tmp_path / "t.csv").write_text("id;text;label;note\n7;red and round;mine;a,b\n8;late;;\n")
    status, out, _ = run("predict", "texts/export", tmp_path / "t.csv", "--format", "csv")
    header, first, second = out.splitlines()
    assert status == 0 and header == "input,label,probability,id,given_label,note"
    assert first.startswith("red and round,") and first.endswith(',7,mine,"a,b"') and second.endswith(",8,,")
    rows = json.loads(run("predict", "texts/export", tmp_path / "t.csv", "--format", "json")[1])
    assert [(row["id"], row["given_label"]) for row in rows] == [("7", "mine"), ("8", "")]
    status, out, _ = run("predict", "texts/export", tmp_path / "t.csv")
    assert status == 0 and all(word in out for word in ("given label", "note", "mine"))


def test_the_column_of_training_is_found_in_the_exports_record(run, base, tmp_path):
    lines = (base / "texts.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join(["sentence,label", *lines[1:]]) + "\n")
    source = {**table(tmp_path / "t.csv")["source"], "text_column": "sentence"}
    export(tmp_path / "run", "hf-minilm", data={"source": source})
    status, out, _ = run("predict", tmp_path / "run" / "export", tmp_path / "t.csv", "--format", "jsonl")
    assert status == 0 and len(out.splitlines()) == len(lines) - 1
    (tmp_path / "u.csv").write_text("review,stars\nred,1\n")
    status, _, err = run("predict", tmp_path / "run" / "export", tmp_path / "u.csv")
    assert status == 2 and "no column 'sentence' or 'text'" in err and "its columns: review, stars" in err
    (tmp_path / "v.csv").write_text('sentence\nred\n""\n')
    status, _, err = run("predict", tmp_path / "run" / "export", tmp_path / "v.csv")
    assert status == 2 and "v.csv, line 3: it is empty" in err and "--skip-broken" in err
    with pytest.warns(DataWarning, match="1 of 2 inputs"):
        status, out, _ = run("predict", tmp_path / "run" / "export", tmp_path / "v.csv", "--skip-broken")
    assert status == 0 and "red" in out
    # On a screen it is one line, without the line of code that said it.
    assert warnings.formatwarning(DataWarning("so it is"), DataWarning, "file.py", 3) == "warning: so it is\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images", "pictures"], "it is a work directory, and its export is 'images/export'"),
        (["pictures", "pictures"], "export again with `mdpd export WORK_DIR OUT`"),
        (["images/export", "gone.png"], "no image file 'gone.png'"),
        (["images/export", "A sentence."], "this export reads images"),
        (["images/export", "texts.csv"], "has no column 'image'"),
        (["images/export", "pictures", "--text-column", "x"], "--text-column is for exports that read texts"),
        (["texts/export", "texts.csv", "--text-column", "txt"], "has no column 'txt' (did you mean 'text'?)"),
        (["texts/export", "pictures/dark/00.png"], "reads texts"),
        (["texts/export", "word", "--batch-size", "0"], "must be at least 1"),
        (["texts/export", "word", "--out", "nowhere/rows.json"], "cannot be written"),
        (["texts/export", "word", "--out", "pictures"], "cannot be written"),
        (["texts/export", "word", "--device", "tpu9"], "device 'tpu9' cannot be used here"),
    ],
)
def test_a_wrong_input_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run("predict", *arguments)
    assert (status, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_evaluation_prints_the_runs_metrics_and_writes_them(run, base, tmp_path):
    out_file = tmp_path / "found.json"
    status, out, _ = run("eval", "texts/export", "texts/config.py", "--json", out_file)
    metrics, found = json.loads((base / "metrics.json").read_text()), json.loads(out_file.read_text())
    assert status == 0 and f"accuracy (val): {metrics['accuracy']:.4f}" in out
    assert found["metrics"] == metrics and found["split"] == "val"


def test_evaluation_takes_another_split_and_options(run):
    status, out, _ = run(
        "eval", "texts/export", "texts/config.py", "--split", "test", "--cfg-options", "data.num_workers=1"
    )
    assert status == 0 and "accuracy (test): " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["texts/export", "nowhere.py"], "does not exist"),
        (["images/export", "texts/config.py"], "reads images, but the data is text"),
        (["texts/export", "texts/config.py", "--cfg-options", "data.batch"], "takes KEY=VALUE pairs"),
        (["texts/export", "texts/config.py", "--cfg-options", "data.batch=3"], "did you mean"),
        (["texts/export", "texts/config.py", "--json", "nowhere/x.json"], "cannot be written"),
    ],
)
def test_an_evaluation_that_cannot_be_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run("eval", *arguments)
    assert (status, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
