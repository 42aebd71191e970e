"""Statistics over seeds: spread, and paired tests, which are scipy's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """What pairs of measurements say of a difference a - b.

    Attributes:
        pairs: how many. mean: of the differences.
        t_test: two-sided p of the paired t-test. None for a single pair, or if all differences are the same: there is
            no spread to compare the mean with.
    """

    pairs: int
    mean: float
    t_test: float | None


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare two lists whose i-th entries belong together (the same seed).

    Raises:
        ValueError: they are empty or of different length.
    """
    from scipy.stats import ttest_1samp

    if not a or len(a) != len(b):
        raise ValueError(f"pairs are needed, and these are {len(a)} and {len(b)} values")
    # Rounded far below what a metric can differ by: 0.3 - 0.2 and 0.2 - 0.1 are the same difference.
    differences = np.round(np.subtract(a, b), 12)
    t_test = float(ttest_1samp(differences, 0.0).pvalue) if np.ptp(differences) > 0 else None
    return Paired(len(differences), float(differences.mean()), t_test)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


__all__ = ["Paired", "paired", "spread"]
