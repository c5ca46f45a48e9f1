"""Intervals and Holm's correction on tables small enough to check by hand or by a reference."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.special import stdtrit

from spf_lite.evaluation.statistics import Estimate, holm, mean_interval

Floats = NDArray[np.float64]


def test_one_run_has_students_interval_over_its_prompts() -> None:
    values = np.random.default_rng(2).random(30)
    one = mean_interval(values)
    reach = stdtrit(29, 0.975) * values.std(ddof=1) / 30**0.5
    assert (one.low, one.high) == pytest.approx((values.mean() - reach, values.mean() + reach))
    assert one.degrees_of_freedom == pytest.approx(29) and one.count == 30
    assert mean_interval([values]) == one
    wide = mean_interval(values, level=0.99)
    assert wide.low < one.low and wide.high > one.high and wide.p_value == pytest.approx(one.p_value)


def test_prompts_that_every_run_shares_do_not_count_as_many() -> None:
    prompts = np.random.default_rng(4).random(20)
    again = mean_interval(np.stack([prompts] * 5))
    once = mean_interval(prompts)
    assert (again.low, again.high) == pytest.approx((once.low, once.high)) and again.count == 100
    pooled = mean_interval(np.stack([prompts] * 5).ravel())
    assert pooled.high - pooled.low < 0.5 * (again.high - again.low), "what pooling would claim"


def test_runs_that_differ_widen_the_interval() -> None:
    prompts = np.random.default_rng(3).normal(0, 0.1, (3, 40))
    found = [mean_interval(prompts + gap * np.array([[-1.0], [0.0], [1.0]])) for gap in (0.0, 0.1, 0.5, 1.0)]
    widths = [one.high - one.low for one in found]
    assert widths == sorted(widths) and widths[-1] > 5 * widths[0]
    assert found[0].degrees_of_freedom > 3 > found[-1].degrees_of_freedom > 2 - 1e-6
    assert found[-1].standard_error == pytest.approx(3**-0.5, rel=0.1), "three runs with a standard deviation of 1"


def test_a_share_of_one_run_has_clopper_and_pearsons_interval() -> None:
    """Reference values: Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    for hits, of, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        share = mean_interval([True] * hits + [False] * (of - hits))
        assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_at_the_edge_counts_prompts_and_not_runs() -> None:
    every, none = mean_interval(np.ones((3, 64)), (0, 1)), mean_interval(np.zeros((3, 64)), (0, 1))
    assert (every.low, every.high) == pytest.approx((0.025 ** (1 / 64), 1))
    assert (none.low, none.high) == pytest.approx((0, 1 - 0.025 ** (1 / 64)))
    assert none.p_value == 1 and every.p_value == 0
    assert mean_interval([True, True]) == mean_interval(np.ones(2), (0, 1))


def test_a_constant_difference_has_the_interval_that_its_bounds_allow() -> None:
    same = mean_interval(np.zeros((3, 32)), (-1, 1))
    rest = 1 - 0.025 ** (1 / 32)
    assert (same.low, same.high, same.p_value) == pytest.approx((-rest, rest, 1))
    for count in (5, 6):  # as a sign test has it: 6 of 6 stand at 5 %, 5 of 5 do not
        every = mean_interval([1.0] * count, (-1, 1))
        assert every.p_value == pytest.approx(2 * 0.5**count)
        assert (every.low > 0) == (every.p_value < 0.05) == (count == 6)
        turned = mean_interval([-1.0] * count, (-1, 1))
        assert (turned.low, turned.high, turned.p_value) == pytest.approx((-every.high, -every.low, every.p_value))
    for value in (0.3, 0.0):
        unbounded = mean_interval([value, value])
        assert (unbounded.low, unbounded.high, unbounded.p_value) == (value, value, float(value == 0))


def test_one_prompt_says_nothing_of_others() -> None:
    for values in ([0.5], [[0.4], [0.6]]):
        one = mean_interval(values)
        assert (one.mean, one.low, one.high, one.p_value) == (0.5, -math.inf, math.inf, 1)
    assert (mean_interval([[0.4], [0.6]], (0, 1)).low, mean_interval([[0.4], [0.6]], (0, 1)).high) == (0, 1)


@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.sampled_from([0.0, 0.25, 1.0])),
    st.sampled_from([(0, 1), (-1, 1), None]),
)
@example(np.array([[0.0, 1.0], [1.0, 0.0]]), None)  # every run and every prompt has the mean 0.5
def test_every_table_has_an_interval_about_its_mean(table: Floats, bounds: tuple[float, float] | None) -> None:
    one = mean_interval(table, bounds)
    least, most = bounds or (-math.inf, math.inf)
    assert least <= one.low <= one.mean + 1e-12 and one.mean - 1e-12 <= one.high <= most
    assert 0 <= one.p_value <= 1 and one.count == table.size
    if bounds or np.ptp(table) > 0:
        assert one.low < one.high, "no table is beyond doubt"
    turned = mean_interval(1 - table, bounds) if bounds == (0, 1) else mean_interval(-table, bounds)
    middle = 1 if bounds == (0, 1) else 0
    assert (turned.low, turned.high) == pytest.approx((middle - one.high, middle - one.low), abs=1e-9)


def test_intervals_stay_within_the_bounds() -> None:
    values = [0.0] * 5 + [0.9]
    assert mean_interval(values).low < 0 == mean_interval(values, (0, 1)).low
    flipped = mean_interval([1 - value for value in values], (0, 1))
    assert flipped.high == 1 and flipped.low == pytest.approx(1 - mean_interval(values).high)
    with pytest.raises(ValueError, match="values from 0.5 to 1.5: expected 0.0 to 1.0"):
        mean_interval([0.5, 1.5], (0.0, 1.0))


def test_the_p_value_says_what_the_interval_says() -> None:
    rng = np.random.default_rng(5)
    found = [mean_interval(rng.normal(shift, 2, (3, 32))) for shift in np.linspace(-1.5, 1.5, 61)]
    stands = [one.p_value < 0.05 for one in found]
    assert stands == [not one.low <= 0 <= one.high for one in found] and 0 < sum(stands) < 61


def test_values_that_have_no_mean_are_refused() -> None:
    for nothing in (np.empty(0), np.empty((3, 0))):
        with pytest.raises(ValueError, match="no values"):
            mean_interval(nothing)
    with pytest.raises(ValueError, match="not finite"):
        mean_interval([1.0, float("nan")])


def test_an_estimate_reads_as_mean_and_interval() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 4)) == "0.500 [0.250, 0.750]"


# -- many comparisons --------------------------------------------------------------------------------------------------


def with_p_values(*p_values: float) -> dict[str, Estimate]:
    return {"abcdef"[k]: Estimate(1, 0, 2, 9, 1, 8, p) for k, p in enumerate(p_values)}


def test_holm_steps_down_and_stops_at_the_first_that_does_not_stand() -> None:
    # 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2: and so 0.04 does not stand either, although 0.04 <= 0.05/1.
    assert holm(with_p_values(0.01, 0.04, 0.03, 0.005)) == {"a", "d"}
    assert holm(with_p_values(0.01, 0.02, 0.03)) == {"a", "b", "c"}, "0.02 <= 0.05/2: Bonferroni would stop at 0.05/3"
    assert holm(with_p_values(0.04)) == {"a"} and holm(with_p_values(0.04, 0.04)) == set()
    assert holm(with_p_values(0.01, 0.04, 0.03, 0.005), level=0.2) == {"a", "b", "c", "d"}
    assert holm({}) == set()
    with pytest.raises(ValueError, match="no p-value: x"):
        holm({"x": Estimate(0.5, 0.4, 0.6, 3)})


def test_statistics_need_no_renderer_no_judge_and_no_torch() -> None:
    code = (
        "import sys, spf_lite.evaluation.statistics\n"
        "heavy = {'torch', 'diffusers', 'resvg_py', 'spf_lite.tiny_world.rendering', 'spf_lite.evaluation.judge'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
