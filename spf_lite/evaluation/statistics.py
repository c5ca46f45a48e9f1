"""Means with intervals.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval and the number of units it is the mean of."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval (Efron 1979).

    Args:
        values: one number per unit, (N,): units are drawn with replacement. Or (S, N), N prompts after each of S
            training runs: runs and prompts are drawn with replacement, each for itself, because the same prompts serve
            every run and one lucky run lifts all of its prompts.
        level: of the interval.
        resamples: how many times to draw.
        seed: of the draws.

    Raises:
        ValueError: if there are no values, or some are not finite.
    """
    units = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if units.size == 0:
        raise ValueError("no values to take the mean of")
    if not np.isfinite(units).all():
        raise ValueError("some values are not finite")
    rng = np.random.default_rng(seed)
    runs, prompts = units.shape
    rows = rng.integers(0, runs, (resamples, runs, 1))
    columns = rng.integers(0, prompts, (resamples, 1, prompts))
    means = units[rows, columns].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(units.mean()), float(low), float(high), int(units.size))
