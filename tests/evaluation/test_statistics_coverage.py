"""Intervals cover what they claim, over simulated studies of three training runs that share their prompts."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from spf_lite.evaluation.statistics import Estimate, holm, mean_interval

Floats = NDArray[np.float64]
RUNS, TRIALS = 3, 400
#: Variances of run, prompt and residual.
RATIOS = [
    (0, 0, 1),
    (0, 1, 1),
    (0.03, 1, 1),
    (0.1, 1, 1),
    (0.3, 1, 1),
    (1, 1, 1),
    (5, 1, 1),
    (0.1, 0, 1),
    (0.05, 1, 0.1),
]
#: True share, and standard deviations of run and prompt on the scale of a latent normal score.
SHARES = [(0.5, 0, 0), (0.5, 0.3, 1), (0.9, 0.2, 1), (0.9, 0.5, 0.5), (0.95, 0.1, 2), (0.97, 0.3, 1), (0.02, 0, 3)]
SIZES = (32, 64)


def gaussian(rng: np.random.Generator, prompts: int, of_run: float, of_prompt: float, residual: float) -> Floats:
    """One study of mean 0: a table of runs by prompts, given the variances."""
    run, prompt = rng.normal(size=(RUNS, 1)), rng.normal(size=(1, prompts))
    table: Floats = of_run**0.5 * run + of_prompt**0.5 * prompt + residual**0.5 * rng.normal(size=(RUNS, prompts))
    return table


def bernoulli(rng: np.random.Generator, prompts: int, share: float, of_run: float, of_prompt: float) -> Floats:
    """One study of zeros and ones whose true mean over all runs and prompts is ``share``."""
    middle = ndtri(share) * (1 + of_run**2 + of_prompt**2) ** 0.5
    table: Floats = (middle + gaussian(rng, prompts, of_run**2, of_prompt**2, 1) > 0).astype(np.float64)
    return table


def share_interval(table: Floats) -> Estimate:
    return mean_interval(table, (0, 1))


def percentile_bootstrap(table: Floats, rng: np.random.Generator) -> Estimate:
    """The usual alternative: runs and prompts drawn with replacement, each for itself (Efron 1979)."""
    runs, prompts = table.shape
    rows, columns = rng.integers(0, runs, (300, runs, 1)), rng.integers(0, prompts, (300, 1, prompts))
    low, high = np.quantile(table[rows, columns].mean(axis=(1, 2)), [0.025, 0.975])
    return Estimate(float(table.mean()), float(low), float(high), table.size)


def satterthwaite(table: Floats) -> Estimate:
    """The textbook's two-way interval: the residual counted once, Satterthwaite's degrees of freedom."""
    runs, prompts = table.shape
    of_run, of_prompt = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_run[:, None] - of_prompt + table.mean()
    freedom = np.array([runs - 1, prompts - 1, (runs - 1) * (prompts - 1)])
    parts = np.array(
        [of_run.var(ddof=1) / runs, of_prompt.var(ddof=1) / prompts, (rest**2).sum() / freedom[2] / table.size]
    )
    variance = max(parts[0] + parts[1] - parts[2], parts.max())
    reach = stdtrit(variance**2 / (parts**2 / freedom).sum(), 0.975) * variance**0.5
    return Estimate(float(table.mean()), float(table.mean() - reach), float(table.mean() + reach), table.size)


def coverage(draw: Callable[[], Floats], interval: Callable[[Floats], Estimate], truth: float) -> tuple[float, float]:
    """Share of simulated studies whose interval holds the truth, and the mean width."""
    found = [interval(draw()) for _ in range(TRIALS)]
    return float(np.mean([e.low <= truth <= e.high for e in found])), float(np.mean([e.high - e.low for e in found]))


@pytest.mark.parametrize(("prompts", "ratio"), list(product(SIZES, RATIOS)))
def test_the_interval_of_a_continuous_measure_covers(prompts: int, ratio: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(prompts)
    covered, width = coverage(lambda: gaussian(rng, prompts, *ratio), mean_interval, 0)
    assert covered >= 0.93
    spread = (ratio[0] / RUNS + ratio[1] / prompts + ratio[2] / (RUNS * prompts)) ** 0.5
    assert width < 2.4 * (2 * 1.96 * spread), "three runs cost at most Student's t with two degrees of freedom"


@pytest.mark.parametrize(("prompts", "setting"), list(product(SIZES, SHARES)))
def test_the_interval_of_a_share_covers(prompts: int, setting: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(prompts)
    covered, width = coverage(lambda: bernoulli(rng, prompts, *setting), share_interval, setting[0])
    assert covered >= 0.93
    assert width < 0.55


@pytest.mark.parametrize(("shared", "plus", "minus"), [(0, 0.05, 0), (0.9, 0.05, 0), (0, 0.2, 0.05), (0.9, 0.1, 0.1)])
def test_the_interval_of_a_paired_difference_of_shares_covers(shared: float, plus: float, minus: float) -> None:
    """One method finds the target where the other does not in a share ``plus`` of all prompts, and the reverse."""
    rng = np.random.default_rng(0)

    def gaps() -> Floats:
        score = ndtr(gaussian(rng, 32, 0, shared, 1 - shared))
        table: Floats = (score < plus).astype(np.float64) - (score > 1 - minus)
        return table

    covered, width = coverage(gaps, lambda table: mean_interval(table, (-1, 1)), plus - minus)
    assert covered >= 0.93 and width < 0.45


def test_a_percentile_bootstrap_falls_short_with_three_runs() -> None:
    rng = np.random.default_rng(0)
    for ratio, most in (((0.1, 1, 1), 0.93), ((1, 1, 1), 0.87)):
        covered, _ = coverage(lambda: gaussian(rng, 64, *ratio), lambda t: percentile_bootstrap(t, rng), 0)  # noqa: B023
        assert covered < most, ratio
    covered, _ = coverage(lambda: bernoulli(rng, 64, 0.9, 0.5, 0.5), lambda t: percentile_bootstrap(t, rng), 0.9)
    assert covered < 0.9


def test_satterthwaites_degrees_of_freedom_fall_short_where_the_runs_differ() -> None:
    ours, theirs = (
        np.mean([coverage(lambda: gaussian(rng, 64, 1, 1, 1), interval, 0)[0] for _ in range(4)])  # noqa: B023
        for interval, rng in ((mean_interval, np.random.default_rng(1)), (satterthwaite, np.random.default_rng(1)))
    )
    assert theirs < 0.93 < ours


def test_holm_rarely_finds_anything_where_nothing_is() -> None:
    rng = np.random.default_rng(6)
    corrected, plain = 0, 0
    for _ in range(TRIALS):
        study = {str(k): mean_interval(gaussian(rng, 32, 0.1, 1, 1)) for k in range(12)}
        corrected += bool(holm(study))
        plain += any(one.p_value < 0.05 for one in study.values())
    assert corrected / TRIALS <= 0.05 < 0.15 < plain / TRIALS
