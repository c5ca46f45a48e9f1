from random import Random

import numpy as np
import pytest

from spf_lite.evaluation.attributes import bias_pickup, flip_rates, flips, flips_per_attribute, unrelated_attributes
from spf_lite.evaluation.judge import HEADS
from spf_lite.evaluation.statistics import Estimate, bootstrap


def verdicts(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = Random(seed)
    return [{name: rng.choice(values) for name, values in HEADS.items()} for _ in range(count)]


def pollute(before: list[dict[str, str]], name: str, value: str, share: float) -> list[dict[str, str]]:
    """Give the first ``share`` of the pictures that do not have it yet a value."""
    lacking = [i for i, verdict in enumerate(before) if verdict[name] != value]
    changed = set(lacking[: round(share * len(lacking))])
    return [{**verdict, name: value} if i in changed else dict(verdict) for i, verdict in enumerate(before)]


def test_nothing_changed_is_no_pollution() -> None:
    before = verdicts(50)
    assert flip_rates(before, before, "sunglasses").sum() == 0
    assert set(flips_per_attribute(before, before, "beard").values()) == {0.0}


def test_flip_rate_rises_with_planted_pollution_and_counts_it_exactly() -> None:
    before = verdicts(200)
    rates = []
    for share in (0.0, 0.25, 0.5, 1.0):
        after = pollute(before, "background", "yellow", share)
        rates.append(flip_rates(before, after, "sunglasses").mean())
        per_attribute = flips_per_attribute(before, after, "sunglasses")
        assert all(rate == 0 for name, rate in per_attribute.items() if name != "background")
        planted = sum(a != b for a, b in zip(before, after, strict=True))
        assert per_attribute["background"] == pytest.approx(planted / 200)
    assert rates == sorted(rates) and rates[0] == 0 and len(set(rates)) == 4


def test_the_target_and_what_it_hides_are_no_pollution() -> None:
    before = verdicts(100)
    after = pollute(pollute(before, "winter-hat", "winter-hat", 1.0), "hair_color", "gray", 1.0)
    assert flip_rates(before, after, "winter-hat").sum() == 0
    assert flip_rates(before, after, "beard").sum() > 0
    assert "glasses" not in unrelated_attributes("sunglasses")
    assert "skin" in unrelated_attributes("sunglasses")


def test_flips_name_before_and_after() -> None:
    (before,) = verdicts(1)
    before["background"] = "gray"
    assert flips(before, {**before, "background": "yellow"}, "beard") == {"background": ("gray", "yellow")}


def test_bias_pickup_answers_only_to_the_accidental_value() -> None:
    before = verdicts(300)
    towards = bias_pickup(before, pollute(before, "background", "yellow", 0.5), {"background": "yellow"})
    away = bias_pickup(before, pollute(before, "background", "blue", 0.5), {"background": "yellow"})
    assert towards["background"] > 0.3
    assert away["background"] <= 0


def test_bootstrap_covers_the_mean_and_narrows() -> None:
    values = np.random.default_rng(1).random(400)
    wide, narrow = bootstrap(values[:40]), bootstrap(values)
    assert narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert bootstrap([1.0, 1.0]) == bootstrap([1.0, 1.0], seed=5)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])
    with pytest.raises(ValueError, match="no values"):
        bootstrap(np.empty((3, 0)))
    with pytest.raises(ValueError, match="not finite"):
        bootstrap([1.0, float("nan")])
    with pytest.raises(ValueError, match="2 judgements before, 1 after"):
        flip_rates(verdicts(2), verdicts(1), "beard")


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_one_run_is_its_prompts() -> None:
    values = np.random.default_rng(2).random(30)
    assert bootstrap([values]) == bootstrap(values)
    assert bootstrap(values).count == 30 and bootstrap(np.stack([values] * 3)).count == 90
    error = values.std() / 30**0.5
    assert width(bootstrap(values)) == pytest.approx(2 * 1.96 * error, rel=0.15), "as the normal approximation has it"


def test_runs_that_differ_widen_the_interval() -> None:
    prompts = np.random.default_rng(3).normal(0, 0.1, (3, 40))
    alike, apart = prompts, prompts + np.array([[-1.0], [0.0], [1.0]])
    for table in (alike, apart):
        estimate, pooled = bootstrap(table), bootstrap(table.ravel())
        assert estimate.mean == pooled.mean == pytest.approx(table.mean())
        assert estimate.count == pooled.count == 120
    assert width(bootstrap(apart)) > 2 * width(bootstrap(apart.ravel())), "120 prompts are not 120 runs"
    assert width(bootstrap(apart)) > 5 * width(bootstrap(alike))
    spread = [width(bootstrap(prompts + gap * np.array([[-1.0], [0.0], [1.0]]))) for gap in (0.0, 0.1, 0.5, 1.0)]
    assert spread == sorted(spread) and len(set(spread)) == 4


def test_prompts_that_every_run_shares_do_not_count_as_many() -> None:
    prompts = np.random.default_rng(4).random(20)
    again = np.stack([prompts] * 5)
    assert width(bootstrap(again)) == pytest.approx(width(bootstrap(prompts)), rel=0.1)
    assert width(bootstrap(again.ravel())) < 0.6 * width(bootstrap(again)), "what pooling would have claimed"


def test_an_estimate_reads_as_mean_and_interval() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 4)) == "0.500 [0.250, 0.750]"
