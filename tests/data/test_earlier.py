"""Reference texts that ask for what was learned before."""

from dataclasses import replace

import pytest

from spf_lite.data.earlier import EarlierTargets, asking_for
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone

SUNGLASSES = LearnedTarget("sunglasses")
PINK = LearnedTarget("pink hair", ("black hair", "gray hair", "red hair"))
BLAZER = LearnedTarget("a blazer", ("blue hoodie",))
TEXTS = [(f"a person, {hair} hair, blue hoodie, smiling", None) for hair in ("red", "gray", "black") * 20]


@pytest.mark.parametrize(
    ("text", "replaces", "target", "longer"),
    [
        ("a person, red hair", None, SUNGLASSES, ("a person, red hair, sunglasses", None)),
        ("a person, red hair, blue hoodie", None, PINK, ("a person, pink hair, blue hoodie", None)),
        ("a person, blue hoodie", "blue hoodie", PINK, ("a person, blue hoodie, pink hair", "blue hoodie")),
        ("a person, blue hoodie", "blue hoodie", BLAZER, ("a person, a blazer", "a blazer")),
        ("a person, Sunglasses", None, SUNGLASSES, ("a person, Sunglasses", None)),
    ],
)
def test_an_earlier_target_takes_its_place_in_a_text(
    text: str, replaces: str | None, target: LearnedTarget, longer: tuple[str, str | None]
) -> None:
    assert asking_for(text, replaces, target) == longer


def test_a_share_of_the_texts_asks_for_every_earlier_target(toy: Backbone) -> None:
    earlier = EarlierTargets((SUNGLASSES, PINK, BLAZER), "a beard", 0.5, seed=0)
    found = [text for text, _ in earlier.added_to(toy, TEXTS)]
    asks = [[target.text in text for target in earlier.targets] for text in found]
    assert [any(row) for row in asks] == [False, True] * 30, "evenly spread"
    assert [text for text, _ in TEXTS[::2]] == found[::2]
    for target in range(3):
        assert 10 < sum(row[target] for row in asks) < 25, "with probability one half each"
    assert len({tuple(row) for row in asks}) == 8, "alone and together"
    assert found == [text for text, _ in earlier.added_to(toy, TEXTS)]
    assert found != [text for text, _ in replace(earlier, seed=1).added_to(toy, TEXTS)]
    assert earlier.drawn(60) != earlier.drawn(60, draw=1)
    quarter = replace(earlier, share=0.25).added_to(toy, TEXTS)
    assert sum(new != old for new, old in zip(quarter, TEXTS, strict=True)) == 15


def test_nothing_asks_for_what_is_learned_now_or_for_nothing(toy: Backbone) -> None:
    for targets, share in (([SUNGLASSES], 1.0), ([None], 1.0), ([], 1.0), ([PINK], 0.0)):
        earlier = EarlierTargets.of(targets, "sunglasses", share, seed=0)
        assert earlier.added_to(toy, TEXTS) == TEXTS
    assert EarlierTargets().drawn(2) == [(), ()]


def test_a_text_stays_as_short_as_the_text_encoder_takes(toy: Backbone) -> None:
    earlier = EarlierTargets((LearnedTarget("red hair"),), "sunglasses", 1.0)
    fitting = full = "a person"
    while earlier.fits(toy, full):
        fitting, full = full, f"{full}, smiling"
    shorter = fitting.removesuffix(", smiling, smiling")  # as many tokens as "red hair" and its comma have, or more
    assert earlier.added_to(toy, [(shorter, None), (fitting, None)]) == [
        (f"{shorter}, red hair", None),
        (fitting, None),
    ]
