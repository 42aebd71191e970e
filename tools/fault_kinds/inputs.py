"""Bad inputs: tables, folders of pictures and texts, drawn by the tests' strategies of hypothesis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bad_inputs
from hypothesis import HealthCheck, Phase, given, seed, settings
from running import main as train
from running import write_config
from small_zoo import small

from tools.fault_kinds.attempt import OUTSIDE, REFUSED, RIGHT, TRACEBACK, Case, Ended, attempt, quiet_descriptors

AT_A_TIME = 50  # examples of one seed


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Tables, folders and texts in turn."""
    transform = small("hf-minilm").text_transform()

    def texts(given_: list[str]) -> str:
        inputs = transform(given_)
        assert 1 <= inputs["input_ids"].shape[1] <= transform.max_length
        return RIGHT

    kinds = [
        ("tables", bad_inputs.tables(), bad_inputs.open_table),
        ("folders of pictures", bad_inputs.folders, bad_inputs.open_folder),
        ("texts", bad_inputs.texts, texts),
    ]
    yield from _drawn(kinds, numbers)


def configurations(folder: Path, numbers: range) -> Iterator[Case]:
    """Overrides of a small configuration, through --dry-run."""
    config = write_config(folder)

    def run(options: list[str]) -> int:
        status = train([config, "--dry-run", "--cfg-options", *options])
        assert sorted(folder.iterdir()) == [config], "written outside"
        return status

    yield from _drawn([("--dry-run", bad_inputs.overrides, run)], numbers)


def _drawn(kinds: list[tuple[str, Any, Callable[[Any], Any]]], numbers: range) -> Iterator[Case]:
    for first in range(numbers.start, numbers.stop, AT_A_TIME):
        subject, strategy, function = kinds[first // AT_A_TIME % len(kinds)]
        count = min(AT_A_TIME, numbers.stop - first)
        found = _examples(strategy, function, first, count)
        # Where a strategy is exhausted, hypothesis draws fewer.
        for number, (value, ended) in enumerate(found[:count], first):
            outcome = ended.outcome
            if outcome == RIGHT and ended.value == REFUSED:
                outcome = REFUSED
            if outcome == TRACEBACK and "written outside" in ended.said:
                outcome = OUTSIDE
            good = outcome in (RIGHT, REFUSED)
            yield Case(subject, number, "" if good else repr(value)[:300], outcome, "" if good else ended.said[-300:])


def _examples(strategy: Any, function: Callable[[Any], Any], number: int, count: int) -> list[tuple[Any, Ended]]:
    found = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: Any) -> None:
        with warnings.catch_warnings(), quiet_descriptors():
            warnings.simplefilter("ignore")
            found.append((value, attempt(lambda: function(value))))

    draw()
    return found
