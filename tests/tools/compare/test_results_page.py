"""The page of results: which rows it has, what the better coach is, and that the same lines give the same page."""

from __future__ import annotations

import json

from tools.compare.measured_pages import END, start_mark
from tools.compare.results_page import ROWS, TOOL, found_of, memory_of, table
from tools.compare.results_page import main as page


def line(method, seed, value, val=None, kept=None, labels=100):
    coach = {} if val is None else {"scores": {"x": val}, "kept": kept, "cpu_seconds": 7.0}
    return {
        "config": "c/digits.py",
        "options": [f"data.source.train_size={labels}", "data.batch_size=16"],
        "method": method,
        "seed": seed,
        "metric": "accuracy",
        "metrics": {"backbone/accuracy": value},
        "deploys": "backbone",
        "cpu_seconds": 10.0,
        "data": "Digits.",
        "coach": coach,
        "memory": {"total": 3 * 2**20} if seed == 0 else {},
    }


LINES = [
    *(line("low_rank_alone", seed, 0.70 + 0.01 * seed) for seed in range(3)),
    *(line("coach_ladder", seed, 0.80, val=0.5 + 0.1 * seed, kept=0.6) for seed in range(3)),
    *(line("coach_reader", seed, 0.90, val=0.6, kept=0.65) for seed in range(2)),
]


def test_the_better_coach_is_chosen_on_val_and_of_equals_the_ladder():
    rows = found_of(LINES)
    assert list(rows) == [name for name in ROWS if name in rows]
    # Seed 0: the reader is ahead on val; seed 1: equals; seed 2 has no reader yet.
    assert rows["coach_low_rank"] == {0: (0.90, 24.0), 1: (0.80, 24.0)}
    assert rows["reader_kept"] == {0: (0.65, 7.0), 1: (0.65, 7.0)}
    assert rows["coach_ladder"][2] == (0.80, 17.0)


def test_differences_are_of_the_same_seeds():
    header, found = table(found_of(LINES), memory_of(LINES))
    cells = {row[0]: row for row in found}
    assert cells[ROWS["coach_reader"]][1:4] == ["2", "0.9000 ± 0.0000", "+0.1950"]
    assert cells[ROWS["low_rank_alone"]][3:] == ["-", "-", "10", "3.0"] and len(header) == 7
    assert cells[ROWS["reader_kept"]][-1] == "-"


def test_what_saw_augmented_pictures_is_compared_with_what_saw_them_too():
    more = [
        *(line("low_rank_alone_aug", seed, 0.80) for seed in range(2)),
        *(line("coach_reader_aug", seed, 0.85, val=0.6, kept=0.75) for seed in range(2)),
    ]
    cells = {row[0]: row for row in table(found_of([*LINES, *more]), {})[1]}
    assert cells[ROWS["coach_reader_aug"]][3] == "+0.0500" and cells[ROWS["reader_kept_aug"]][3] == "-0.0500"
    assert cells[ROWS["low_rank_alone_aug"]][3] == "-" and cells[ROWS["coach_reader"]][3] == "+0.1950"


def test_the_same_lines_give_the_same_page_and_prose_stays(tmp_path, monkeypatch, capsys):
    runs, target = tmp_path / "runs.jsonl", tmp_path / "page.md"
    runs.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    target.write_text(f"# Title\n\nProse.\n\n{start_mark(TOOL)}\n\n{END}\n\nMore.\n")
    monkeypatch.setattr("sys.argv", ["results", str(target), "--runs", str(runs)])
    assert page() == 0
    once = target.read_text()
    assert page() == 0 and target.read_text() == once
    figure = tmp_path / "plots" / "page_digits_100.svg"
    assert f"![accuracy against time](plots/{figure.name})" in once and "low_rank_alone" in figure.read_text()
    assert "### digits" in once and "Prose." in once and once.endswith("More.\n")
    fewer = [line("low_rank_alone", 0, 0.5, labels=25)]
    runs.write_text("".join(json.dumps(one) + "\n" for one in [*LINES, *fewer]))
    assert page() == 0
    found = target.read_text()
    assert found.count("### ") == 1 and found.index("With 25 labels:") < found.index("With 100 labels:")
    assert once.partition("With 100")[2] == found.partition("With 100")[2]  # they are not pooled
    runs.write_text("")
    assert page() == 2 and "no runs in" in capsys.readouterr().err
    assert target.read_text() == found
