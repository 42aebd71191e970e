"""Statistics against values that were published or worked out by hand."""

import math

import pytest

from tools.compare.result_lines import score
from tools.compare.statistics import paired, spread

# Student (1908), "The probable error of a mean": extra hours of sleep of ten patients under two drugs.
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]


def test_the_paired_test_finds_students_own_figures():
    found = paired(SECOND, FIRST)
    # t = 4.0621 on 9 degrees of freedom; mean 1.58, as in R's t.test(extra ~ group, paired = TRUE).
    assert found.pairs == 10 and found.mean == pytest.approx(1.58)
    assert found.t_test == pytest.approx(0.002833, abs=1e-6)


def test_turned_round_the_signs_turn_and_nothing_else():
    one, other = paired(SECOND, FIRST), paired(FIRST, SECOND)
    assert other.mean == pytest.approx(-one.mean) and other.t_test == pytest.approx(one.t_test)


def test_three_pairs_by_hand():
    found = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    # Differences 1, 2, 3: t = 2 / (1 / sqrt 3), on 2 degrees of freedom.
    assert found.t_test == pytest.approx(0.0741799, abs=1e-6)


def test_differences_without_spread_and_single_pairs_have_no_p():
    same = paired([0.3, 0.2, 0.7], [0.2, 0.1, 0.6])
    assert same.mean == pytest.approx(0.1) and same.t_test is None
    single = paired([0.5], [0.25])
    assert (single.pairs, single.mean, single.t_test) == (1, 0.25, None)


def test_what_is_no_pairs_is_refused():
    for a, b in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="pairs are needed"):
            paired(a, b)


def test_spread_is_that_of_a_sample():
    assert spread([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, (5 / 3) ** 0.5))
    assert spread([2.0]) == (2.0, None)


def test_less_perplexity_is_the_better_score():
    run = {"deploys": "backbone", "metric": "perplexity", "metrics": {"backbone/perplexity": 20.0}}
    worse = {**run, "metrics": {"backbone/perplexity": 30.0}}
    assert score(run) > score(worse) > score({**run, "metrics": {"backbone/perplexity": math.inf}})
