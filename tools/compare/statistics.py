"""Statistics over seeds: spread, and paired tests, which are scipy's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Of fewer pairs, not even differences of one sign give the signed-rank test a p below 0.05: 2 / 2^5 = 0.0625.
WILCOXON_PAIRS = 6


@dataclass(frozen=True)
class Paired:
    """What pairs of measurements say of a difference a - b.

    Attributes:
        pairs: how many. mean: of the differences.
        low, high: 95 % confidence interval of the mean (Student's t). t_test: two-sided p of the paired t-test. All
            None for a single pair, or if all differences are the same: there is no spread to compare the mean with.
        wilcoxon: two-sided p of Wilcoxon's signed-rank test; None for fewer than WILCOXON_PAIRS that differ.
    """

    pairs: int
    mean: float
    low: float | None
    high: float | None
    t_test: float | None
    wilcoxon: float | None


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare two lists whose i-th entries belong together (the same seed).

    Raises:
        ValueError: they are empty or of different length.
    """
    from scipy.stats import ttest_rel, wilcoxon

    if not a or len(a) != len(b):
        raise ValueError(f"pairs are needed, and these are {len(a)} and {len(b)} values")
    # Rounded far below what a metric can differ by: 0.3 - 0.2 and 0.2 - 0.1 are the same difference.
    differences = np.round(np.subtract(a, b), 12)
    low = high = t_test = None
    if np.ptp(differences) > 0:
        result = ttest_rel(differences, np.zeros_like(differences))
        low, high = (float(limit) for limit in result.confidence_interval(0.95))
        t_test = float(result.pvalue)
    changed = differences[differences != 0]
    signed = float(wilcoxon(changed).pvalue) if len(changed) >= WILCOXON_PAIRS else None
    return Paired(len(differences), float(differences.mean()), low, high, t_test, signed)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


__all__ = ["WILCOXON_PAIRS", "Paired", "paired", "spread"]
