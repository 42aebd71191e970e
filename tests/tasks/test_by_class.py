"""Scores of each class and what is taken for what, by hand; and where a run shows them."""

from __future__ import annotations

import json

import pytest
import torch
from running import text_table, trained, write_config

from mdpd_plugins.tasks import by_class


def test_scores_of_each_class_and_the_confusions():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    said = torch.tensor([0, 0, 1, 1, 1, 1])
    found = by_class("single", torch.nn.functional.one_hot(said, 4).float(), labels, ["a", "b", "c", "d"])
    assert found["confusion"] == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    a, b, c, d = found["classes"]
    assert a == {"name": "a", "precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8), "count": 3}
    assert (b["precision"], b["recall"], b["count"]) == (0.5, 1.0, 2)
    assert (c["precision"], c["recall"], c["f1"]) == (0.0, 0.0, 0.0) and d["count"] == 0


def test_several_labels_have_scores_and_no_confusions_and_numbers_have_neither():
    labels = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    found = by_class("multi", torch.tensor([[1.0, 1], [-1, 1], [-1, -1]]), labels, ["a", "b"])
    assert [(row["precision"], row["recall"]) for row in found["classes"]] == [(1.0, 0.5), (0.5, 1.0)]
    assert found["confusion"] == [] and by_class("float", labels, labels, ()) == {}
    many = torch.eye(60)
    assert by_class("single", many, torch.arange(60), list(map(str, range(60))))["confusion"] == []


def test_a_run_keeps_them_and_its_card_keeps_class_names_with_commas_apart(tmp_path):
    table = text_table(tmp_path / "t.csv")
    table.write_text(table.read_text().replace(",a\n", ',"red, dark"\n'))
    source = {"type": "table", "path": str(table), "text_column": "text", "label_column": "label"}
    trained(write_config(tmp_path, "hf-minilm", data={"source": source}, train={"max_steps": 2}), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    confusion = summary["by_class"]["confusion"]
    right = confusion[0][0] + confusion[1][1]
    assert right / sum(map(sum, confusion)) == pytest.approx(summary["metrics"]["backbone/accuracy"])
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert '- Classes: b, "red, dark"\n' in card or '- Classes: "red, dark", b\n' in card
