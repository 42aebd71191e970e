"""Cases from public reports: those that cost little come out as expected, and the page lists all there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.tried_cases import known_cases, main, page_of

PAGE = Path(__file__).parents[2] / "docs" / "tried-cases.md"
CASES = known_cases()
# One or two a subject, of those that train nothing.
SAMPLE = [
    "hidden_folders",
    "splits_without_classes",
    "padding_of_a_decoder",
    "pairs_for_roberta",
    "a_number_and_several_outputs",
    "decay_of_norms",
    "sizes_that_do_not_match",
    "averages_beside_the_weights",
]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_comes_out_as_expected(name, tmp_path):
    assert CASES[name].tried(tmp_path / "case") == CASES[name].expected


def test_the_page_lists_every_case_with_its_report():
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "https://github.com/" in line]
    assert len(rows) == len(CASES)
    # What came out is the tool's to say; all else stands in its sources.
    as_written = page_of({name: one.expected for name, one in CASES.items()})
    first = {line.split(" | ")[0]: line.split(" | ")[1:3] for line in as_written.splitlines() if "github.com" in line}
    assert first == {line.split(" | ")[0]: line.split(" | ")[1:3] for line in rows}, (
        "run python -m tools.tried_cases docs/tried-cases.md"
    )


def test_a_case_that_comes_out_otherwise_stands_on_the_page_and_in_the_exit_status(monkeypatch, capsys):
    name = "endings_written_large"
    page = page_of({**{n: one.expected for n, one in CASES.items()}, name: "train: nothing"})
    assert "**train: nothing**" in page and f"{len(CASES) - 1} came out as expected, 1 did not" in page
    monkeypatch.setattr(type(CASES[name]), "tried", lambda self, folder: "train: nothing")
    assert main(["--case", name]) == 1
    assert f"OTHERWISE: {name}: train: nothing" in capsys.readouterr().err


def test_an_unknown_case_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["--case", "nothing_like_it"])
    assert "there are" in capsys.readouterr().err
