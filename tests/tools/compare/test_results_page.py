"""The page of results: which rows it has, what the better coach is, and that the same lines give the same page."""

from __future__ import annotations

import json

from tools.compare.measured_pages import END, start_mark
from tools.compare.result_rows import ROWS, Reached, rows_of, title
from tools.compare.results_page import TOOL, full_table, short_table
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
    rows = rows_of(LINES)
    assert list(rows) == [name for name in ROWS if name in rows]
    # Seed 0: the reader is ahead on val; seed 1: equals; seed 2 has no reader yet.
    assert rows["coach_low_rank"] == {0: Reached(0.90, 24.0, 3 * 2**20), 1: Reached(0.80, 24.0)}
    assert rows["reader_kept"] == {0: Reached(0.65, 7.0), 1: Reached(0.65, 7.0)}
    assert rows["coach_ladder"][2] == Reached(0.80, 17.0)


def test_differences_are_of_the_same_seeds():
    header, found = full_table(rows_of(LINES))
    cells = {row[0]: row for row in found}
    assert cells[ROWS["coach_reader"]][1:4] == ["2", "0.9000 ± 0.0000", "+0.1950"]
    assert cells[ROWS["low_rank_alone"]][3:] == ["-", "-", "10", "-", "3.0"] and len(header) == 8
    assert cells[ROWS["reader_kept"]][-1] == "-"


def test_what_saw_augmented_pictures_is_compared_with_what_saw_them_too():
    more = [
        *(line("low_rank_alone_aug", seed, 0.80) for seed in range(2)),
        *(line("coach_reader_aug", seed, 0.85, val=0.6, kept=0.75) for seed in range(2)),
    ]
    cells = {row[0]: row for row in full_table(rows_of([*LINES, *more]))[1]}
    assert cells[title("coach_reader_aug")][3] == "+0.0500" and cells[title("reader_kept_aug")][3] == "-0.0500"
    assert cells[title("low_rank_alone_aug")][3] == "-" and cells[ROWS["coach_reader"]][3] == "+0.1950"


def test_the_short_table_has_a_column_for_each_number_of_labels():
    few = [line("low_rank_alone", seed, 0.5 + 0.1 * seed, labels=25) for seed in range(2)]
    augmented = [line("coach_reader_aug", 0, 0.85, val=0.6, kept=0.75)]
    header, found = short_table({100: rows_of([*LINES, *augmented]), 25: rows_of(few)})
    assert header == ["method", "25 labels", "100 labels", "100 labels, augmented", "CPU seconds", "step, MiB"]
    cells = {row[0]: row[1:] for row in found}
    assert cells[ROWS["low_rank_alone"]] == ["0.5500 ± 0.0707 (2)", "0.7100 ± 0.0100 (3)", "-", "10", "3.0"]
    assert cells[ROWS["coach_reader"]] == ["-", "0.9000 ± 0.0000 (2)", "0.8500 (1)", "17", "3.0"]
    assert cells[ROWS["reader_kept"]][:3] == ["-", "0.6500 ± 0.0000 (2)", "0.7500 (1)"]
    assert short_table({0: rows_of(few)})[0][1] == "all labels"


def test_time_to_loras_accuracy_is_where_val_first_says_what_loras_best_evaluation_says():
    lora = {**line("lora_alone", 0, 0.7), "evaluations": [[10, 0.5], [20, 0.75], [30, 0.6]], "steps": 30}
    taught = {**line("coach_reader", 0, 0.9, val=0.6, kept=0.65), "evaluations": [[5, 0.7], [10, 0.8]], "steps": 20}
    worse = {**line("norm_alone", 0, 0.6), "evaluations": [[20, 0.7]], "steps": 20}
    rows = rows_of([lora, taught, worse, line("low_rank_alone", 0, 0.7)])
    assert rows["lora_alone"][0].to_lora == 10.0 * 20 / 30
    assert rows["coach_reader"][0].to_lora == 7.0 + 10.0 * 10 / 20
    assert rows["norm_alone"][0].to_lora is None  # it never got there
    assert rows["low_rank_alone"][0].to_lora is None  # a line of before evaluations were kept
    cells = {row[0]: row[-2] for row in full_table(rows)[1]}
    assert cells[ROWS["coach_reader"]] == "12 (1 of 1)" and cells[ROWS["norm_alone"]] == "-"


def test_the_same_lines_give_the_same_pages_and_prose_stays(tmp_path, monkeypatch, capsys):
    runs, target, appendix = (tmp_path / name for name in ("runs.jsonl", "page.md", "appendix.md"))
    runs.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    for file in (target, appendix):
        file.write_text(f"# Title\n\nProse.\n\n{start_mark(TOOL)}\n\n{END}\n\nMore.\n")
    monkeypatch.setattr("sys.argv", ["results", str(target), "--appendix", str(appendix), "--runs", str(runs)])
    assert page() == 0
    once = target.read_text(), appendix.read_text()
    assert page() == 0 and (target.read_text(), appendix.read_text()) == once
    figure = tmp_path / "plots" / "page_digits.svg"
    assert f"![accuracy against time](plots/{figure.name})" in once[0] and "low_rank_alone" in figure.read_text()
    for text in once:
        assert "### digits" in text and "Prose." in text and text.endswith("More.\n")
    fewer = [line("low_rank_alone", 0, 0.5, labels=25)]
    runs.write_text("".join(json.dumps(one) + "\n" for one in [*LINES, *fewer]))
    assert page() == 0
    found = appendix.read_text()
    assert found.count("### ") == 1 and found.index("With 25 labels:") < found.index("With 100 labels:")
    assert once[1].partition("With 100")[2] == found.partition("With 100")[2]  # they are not pooled
    before = target.read_text(), found
    runs.write_text("")
    assert page() == 2 and "no runs in" in capsys.readouterr().err
    assert (target.read_text(), appendix.read_text()) == before
