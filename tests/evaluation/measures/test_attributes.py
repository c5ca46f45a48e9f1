from random import Random

import pytest

from spf_lite.evaluation.judge import HEADS, head_of
from spf_lite.evaluation.measures.attributes import (
    bias_pickup,
    flip_rates,
    flips,
    flips_per_attribute,
    pure,
    unrelated_attributes,
)
from spf_lite.tiny_world.portraits import TARGETS


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


def test_only_what_can_flip_counts() -> None:
    assert {target: unrelated_attributes(target) for target in TARGETS} == {
        "sunglasses": ["hair_style", "hair_color", "skin", "expression", "clothes", "clothes_color", "background"],
        "beard": [
            *("hair_style", "hair_color", "skin", "expression", "clothes", "clothes_color", "background", "glasses"),
        ],
        "winter-hat": ["skin", "expression", "clothes", "clothes_color", "background", "glasses"],
        "pink-hair": ["hair_style", "skin", "expression", "clothes", "clothes_color", "background", "glasses"],
        "eyepatch": ["hair_style", "hair_color", "skin", "expression", "clothes", "clothes_color", "background"],
        "blazer": ["hair_style", "hair_color", "skin", "expression", "background", "glasses"],
        "pencil-sketch": ["hair_style", "expression", "clothes", "glasses"],
    }


@pytest.mark.parametrize("head", ["beard", "winter-hat", "pencil-sketch"])
def test_a_target_that_no_attribute_has_as_a_value_is_no_flip(head: str) -> None:
    (before,) = verdicts(1)
    after = {**before, head: "no" if before[head] == head else head}
    for target in TARGETS:
        if target != head:
            assert flips(before, after, target) == {} and flip_rates([before], [after], target) == [0]


def test_a_target_that_is_a_value_of_an_attribute_is_a_flip_of_it() -> None:
    before = {**verdicts(1)[0], "glasses": "yes"}
    after = {**before, "glasses": "eyepatch"}
    assert flips(before, after, "beard") == {"glasses": ("yes", "eyepatch")}
    assert flip_rates([before], [after], "beard") == pytest.approx([1 / 8])


def with_target(before: list[dict[str, str]], target: str, share: float = 1.0) -> list[dict[str, str]]:
    """Pictures that show the target, the first ``share`` of them."""
    return [
        {**verdict, head_of(target): target} if i < share * len(before) else dict(verdict)
        for i, verdict in enumerate(before)
    ]


def without_target(count: int, target: str) -> list[dict[str, str]]:
    return [{**verdict, head_of(target): "no"} for verdict in verdicts(count)]


@pytest.mark.parametrize("target", ["sunglasses", "beard"])
@pytest.mark.parametrize(("shown", "polluted", "share"), [(1, 0, 1), (0, 0, 0), (1, 0.25, 0.75), (0.75, 0.5, 0.25)])
def test_pure_is_the_share_with_the_target_and_nothing_else_changed(
    target: str, shown: float, polluted: float, share: float
) -> None:
    before = [{**verdict, "background": "gray"} for verdict in without_target(40, target)]
    after = pollute(with_target(before, target, shown), "background", "yellow", polluted)
    found = pure(before, after, target)
    assert set(found) <= {0.0, 1.0} and found.shape == (40,)
    assert found.mean() == pytest.approx(share)


def test_one_flip_of_any_unrelated_attribute_ends_purity() -> None:
    for target in TARGETS:
        (before,) = without_target(1, target)
        (after,) = with_target([before], target)
        assert pure([before], [after], target) == [1]
        for name in unrelated_attributes(target):
            other = next(value for value in HEADS[name] if value != before[name])
            assert pure([before], [{**after, name: other}], target) == [0], name
        for name in set(HEADS) - set(unrelated_attributes(target)) - {head_of(target)}:
            other = next(value for value in HEADS[name] if value != before[name])
            assert pure([before], [{**after, name: other}], target) == [1], name


def test_a_beard_for_which_the_glasses_vanish_is_not_pure() -> None:
    before = [{**without_target(1, "beard")[0], "glasses": "yes"}] * 2
    kept, lost = with_target(before, "beard")
    lost["glasses"] = "no"
    assert pure(before, [kept, lost], "beard").tolist() == [1, 0]


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
    with pytest.raises(ValueError, match="2 judgements before, 1 after"):
        pure(verdicts(2), verdicts(1), "beard")
