from random import Random

import pytest

from spf_lite.evaluation.attributes import bias_pickup, flip_rates, flips, flips_per_attribute, unrelated_attributes
from spf_lite.evaluation.judge import HEADS


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


def test_bias_pickup_answers_only_to_the_value_of_the_set() -> None:
    before = verdicts(300)
    towards = bias_pickup(before, pollute(before, "background", "yellow", 0.5), {"background": "yellow"})
    away = bias_pickup(before, pollute(before, "background", "blue", 0.5), {"background": "yellow"})
    assert towards["background"] > 0.3
    assert away["background"] <= 0


def test_judgements_are_compared_in_pairs() -> None:
    with pytest.raises(ValueError, match="2 judgements before, 1 after"):
        flip_rates(verdicts(2), verdicts(1), "beard")
