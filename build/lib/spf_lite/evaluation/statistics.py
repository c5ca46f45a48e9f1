r"""Means with intervals that hold for new prompts and new training runs, and tests that allow for many comparisons.

A measure is a table :math:`u_{sn}` of :math:`S` training runs by :math:`N` prompts. Runs and prompts are both samples,
and they are *crossed*: the same prompts serve every run, and one lucky run lifts all of its prompts. So the
:math:`S \cdot N` numbers are not independent. The variance of the mean is estimated from the two margins:

.. math:: \hat V = \hat V_\text{run} + \hat V_\text{prompt}
    = \frac{1}{S} \operatorname{Var}_s(\bar u_{s\cdot}) + \frac{1}{N} \operatorname{Var}_n(\bar u_{\cdot n})

This counts the residual once more than an analysis of variance does. So it errs on the safe side and is never negative.
(If the residual alone gives a longer interval, which chance can do with few values, that one is used.) The interval is
:math:`\bar u \pm t^* \hat V^{1/2}`, with Cochran and Cox's mean of both quantiles of Student's t (1950):

.. math:: t^* = \frac{\hat V_\text{run}\, t_{S-1} + \hat V_\text{prompt}\, t_{N-1}}{\hat V}

With three runs that differ, Satterthwaite's degrees of freedom (1946) cover about 92 % where 95 % is meant, and a
percentile bootstrap (Efron 1979) about 77 %; ``tests/evaluation/test_statistics_coverage.py`` simulates all three.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtr, stdtridf, stdtrit

Name = TypeVar("Name", bound=Hashable)
#: A table with a smaller range than this is constant: what is left is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, and what a test needs.

    Attributes:
        mean: of all values.
        low: lower end of the interval.
        high: upper end of the interval.
        count: number of values, over all runs.
        standard_error: square root of the estimated variance of the mean.
        degrees_of_freedom: of the Student t distribution behind interval and p-value.
        p_value: two-sided, against a true mean of 0.
    """

    mean: float
    low: float
    high: float
    count: int
    standard_error: float = math.nan
    degrees_of_freedom: float = math.nan
    p_value: float = math.nan

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: ArrayLike, bounds: tuple[float, float] | None = None, level: float = 0.95) -> Estimate:
    """The mean, with an interval for new prompts and, given several training runs, for new runs.

    - Shares (booleans, or zeros and ones with bounds 0 and 1) get Clopper and Pearson's exact interval after one run,
      and after several Wilson's score interval with :math:`t^*` and the effective number of answers.
    - A constant table has no variance to estimate. Its interval follows from the bounds: if N prompts all gave c, at
      least a share of ``((1 - level) / 2) ** (1 / N)`` of all prompts does, and the rest lies within the bounds.
      Without bounds it is the value itself, which claims too much: give bounds.
    - One prompt says nothing of others: the interval is all that the bounds allow.

    Args:
        values: (N,), one number for each of N independent prompts after one training run. Or (S, N), the same N prompts
            after each of S training runs.
        bounds: lowest and highest possible value. The interval does not leave them. Default: 0 and 1 for booleans, none
            otherwise.
        level: of the interval.

    Raises:
        ValueError: if there are no values, some are not finite, or some are out of bounds.
    """
    given = np.asarray(values)
    bounds = (0.0, 1.0) if given.dtype == np.bool_ else bounds
    table = np.atleast_2d(given.astype(np.float64))
    if table.size == 0:
        raise ValueError("no values to take the mean of")
    if not np.isfinite(table).all():
        raise ValueError("some values are not finite")
    least, most = bounds or (-math.inf, math.inf)
    share = (least, most) == (0.0, 1.0) and bool(np.isin(table, (0, 1)).all())
    if table.min() < least - _ROUNDING or table.max() > most + _ROUNDING:
        raise ValueError(f"values from {table.min()} to {table.max()}: expected {least} to {most}")
    if np.ptp(table) <= _ROUNDING:
        return _constant(float(table.flat[0]), table, bounds, level)
    if table.shape[1] == 1:
        return Estimate(float(table.mean()), least, most, table.size, math.inf, 0, 1.0)

    mean = float(table.mean())
    error, quantile = _error_and_quantile(table, level)
    if share:
        low, high = _share(mean, table, error, quantile, level)
    else:
        low, high = max(least, mean - quantile * error), min(most, mean + quantile * error)
    # The one Student t distribution that has the same quantile.
    freedom = float(stdtridf((1 + level) / 2, quantile))
    return Estimate(mean, low, high, table.size, error, freedom, float(2 * stdtr(freedom, -abs(mean) / error)))


def _error_and_quantile(table: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Standard error of the mean of an (S, N) table, and Cochran and Cox's quantile for it."""
    tail, (runs, prompts) = (1 + level) / 2, table.shape
    of_run, of_prompt = table.mean(axis=1), table.mean(axis=0)
    parts = [(of_prompt.var(ddof=1) / prompts, stdtrit(prompts - 1, tail))]
    if runs > 1:
        parts.append((of_run.var(ddof=1) / runs, stdtrit(runs - 1, tail)))
    variance = float(sum(part for part, _ in parts))
    quantile = float(sum(part * own for part, own in parts)) / variance if variance else 0.0
    # Runs and prompts may happen to have one mean each, and the values to differ all the same.
    freedom = max(1, (runs - 1) * (prompts - 1))
    residual = float(np.square(table - of_run[:, None] - of_prompt + table.mean()).sum() / freedom / table.size)
    alone = float(stdtrit(freedom, tail))
    if residual * alone**2 > variance * quantile**2:
        return math.sqrt(residual), alone
    return math.sqrt(variance), quantile


def _share(mean: float, table: NDArray[np.float64], error: float, quantile: float, level: float) -> tuple[float, float]:
    """Interval of a share: Clopper and Pearson's (1934) for one run, Wilson's (1927) with Student's t for several."""
    runs, prompts = table.shape
    if runs == 1:
        hits, misses, tail = mean * prompts, (1 - mean) * prompts, (1 - level) / 2
        return float(betaincinv(hits, misses + 1, tail)), float(betaincinv(hits + 1, misses, 1 - tail))
    effective = min(mean * (1 - mean) / error**2, table.size)  # as many independent answers would be as exact
    pull = quantile**2 / effective
    middle = (mean + pull / 2) / (1 + pull)
    reach = quantile / (1 + pull) * math.sqrt(mean * (1 - mean) / effective + pull / (4 * effective))
    return middle - reach, middle + reach


def _constant(value: float, table: NDArray[np.float64], bounds: tuple[float, float] | None, level: float) -> Estimate:
    """Interval and p-value of a table with one and the same value everywhere."""
    prompts = table.shape[1]
    if bounds is None:
        least, most = (value, value) if prompts > 1 else (-math.inf, math.inf)
        return Estimate(value, least, most, table.size, 0.0, prompts - 1, float(value == 0 or prompts == 1))
    alike = ((1 - level) / 2) ** (1 / prompts)
    low, high = (alike * value + (1 - alike) * bound for bound in bounds)
    # If the true mean is 0, all other prompts lie at the far bound at best: then at most this share is alike.
    far = bounds[0] if value > 0 else bounds[1]
    share = max(0.0, -far / (value - far)) if value else 1.0
    return Estimate(value, low, high, table.size, 0.0, prompts - 1, min(1.0, 2 * share**prompts))


def holm(estimates: Mapping[Name, Estimate], level: float = 0.05) -> set[Name]:
    """Names of the estimates that differ from 0, with Holm's correction (1979) for the number of comparisons.

    The chance that the set holds any name whose true mean is 0 is at most ``level``, however the estimates depend on
    each other.

    Args:
        estimates: by name: all comparisons of one table, also those that show nothing.
        level: the chance of a false name, over the whole table.

    Raises:
        ValueError: if an estimate has no p-value.
    """
    if untested := [str(name) for name, estimate in estimates.items() if math.isnan(estimate.p_value)]:
        raise ValueError(f"no p-value: {', '.join(untested)}")
    found: set[Name] = set()
    for name, estimate in sorted(estimates.items(), key=lambda pair: pair[1].p_value):
        if estimate.p_value > level / (len(estimates) - len(found)):
            break
        found.add(name)
    return found
