"""Predictions of each kind of label, and the forms they are written in."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from exporting import export, table

from mdpd_plugins.cli.predict import FORMATS as OFFERED
from mdpd_plugins.exports import FORMATS, Input, load_export, predict, read_inputs, write_rows
from mdpd_plugins.registry.errors import CapabilityError, ConfigError

TEXTS = ["red round", "a much longer text about something small and new", "late"]
LABELS = {"single": "abcd", "multi": ["x", "y", "x|z", ""], "float": ["0.5", "-1", "2.25", "3"]}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Kind of label -> a text classifier's export."""
    base, found = tmp_path_factory.mktemp("exports"), {}
    for kind, labels in LABELS.items():
        rows = [f"{TEXTS[i % 3]} {i},{labels[i % 4]}" for i in range(48)]
        (base / f"{kind}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        export(base / kind, "hf-minilm", data=table(base / f"{kind}.csv", label_kind=kind))
        found[kind] = load_export(base / kind / "export", "cpu")
    return found


@pytest.fixture
def rows(exports):
    def call(kind, texts=TEXTS, **options):
        return list(predict(exports[kind], read_inputs(texts, "text"), **options))

    return call


def test_one_label_with_its_probability(rows, exports):
    probabilities = exports["single"].logits(TEXTS).softmax(1)
    for text, row, expected in zip(TEXTS, rows("single"), probabilities, strict=True):
        assert row == {
            "input": text,
            "label": "abcd"[int(expected.argmax())],
            "probability": pytest.approx(float(expected.max())),
        }


def test_the_most_probable_labels_in_order(rows):
    for row in rows("single", top_k=9):  # more than there are: all of them
        values = [one["probability"] for one in row["top"]]
        assert sorted(values, reverse=True) == values and sum(values) == pytest.approx(1)
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}
        assert {one["label"] for one in row["top"]} == set("abcd")


def test_several_labels_are_those_above_one_half(rows, exports):
    assert exports["multi"].record.classes == ("x", "y", "z")
    probabilities = exports["multi"].logits(TEXTS).sigmoid()
    for row, expected in zip(rows("multi"), probabilities, strict=True):
        assert {one["label"] for one in row["labels"]} == {c for c, p in zip("xyz", expected, strict=True) if p > 0.5}
        values = [one["probability"] for one in row["labels"]]
        assert sorted(values, reverse=True) == values


def test_a_number_is_the_models_output(rows, exports):
    values = [row["value"] for row in rows("float")]
    assert values == exports["float"].logits(TEXTS).squeeze(1).tolist()


def test_batches_do_not_change_predictions(rows):
    whole, single = rows("single", batch_size=3), rows("single", batch_size=1)
    assert [r["label"] for r in whole] == [r["label"] for r in single]
    torch.testing.assert_close(
        torch.tensor([r["probability"] for r in whole]), torch.tensor([r["probability"] for r in single])
    )


def test_a_pair_of_texts_is_read_as_one(exports):
    (alone,) = predict(exports["single"], [Input("red round", "text")])
    (pair,) = predict(exports["single"], [Input("red round", "text", "late")])
    assert pair["pair"] == "late" and "pair" not in alone
    assert pair["probability"] != alone["probability"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("single", {"batch_size": 0}, "must be at least 1"),
        ("single", {"top_k": 0}, "must be at least 1"),
        ("float", {"top_k": 2}, "top-k is for exports that give one label"),
    ],
)
def test_wrong_sizes_are_refused_before_anything_runs(exports, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        predict(exports[kind], [Input("x", "text")], **options)


def test_a_kind_of_label_without_predictions_says_so(exports):
    from dataclasses import replace

    exported = replace(exports["single"], record=replace(exports["single"].record, task="ranking"))
    with pytest.raises(CapabilityError, match="'ranking' labels gives no predictions; known: single, multi, float"):
        predict(exported, [Input("x", "text")])


# ---- forms


def test_the_command_offers_the_forms_there_are():
    assert set(OFFERED) == set(FORMATS)


def test_json_and_json_lines_hold_the_rows(rows, tmp_path):
    found = rows("single", top_k=2)
    write_rows(found, "json", tmp_path / "a.json")
    write_rows(found, "jsonl", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.json").read_text()) == found
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == found
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", "a.jsonl"}  # nothing temporary is left


def test_csv_has_one_cell_a_column(rows, tmp_path):
    write_rows(rows("single", top_k=2), "csv", tmp_path / "a.csv")
    write_rows(rows("multi", texts=TEXTS * 3), "csv", tmp_path / "b.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["input", "label", "probability", "label_2", "probability_2"]
    assert [r["input"] for r in read] == TEXTS
    assert [float(r["probability_2"]) for r in read] == [r["top"][1]["probability"] for r in rows("single", top_k=2)]
    with open(tmp_path / "b.csv", newline="") as file:
        for row, expected in zip(csv.DictReader(file), rows("multi", texts=TEXTS * 3), strict=True):
            assert row["labels"] == "|".join(one["label"] for one in expected["labels"])


def test_a_table_keeps_what_was_predicted_beside_a_long_text(capsys):
    text = "[bold] " + "long " * 100
    write_rows([{"input": text, "label": "politics", "probability": 0.98765}], "table")
    out = capsys.readouterr().out
    assert "[bold] long" in out and "…" in out and "politics" in out and "0.9877" in out
    assert max(map(len, out.splitlines())) <= 120


def test_a_file_is_left_alone_when_writing_fails(tmp_path):
    (tmp_path / "old.json").write_text("old")
    with pytest.raises(TypeError):
        write_rows([{"input": object()}], "json", tmp_path / "old.json")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.json", "old")]
