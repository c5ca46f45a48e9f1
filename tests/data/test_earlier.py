"""Reference texts that ask for what was learned before."""

from dataclasses import replace

import pytest

from spf_lite.data.earlier import EarlierTargets, asking_for
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone

from ..method.conftest import item

SUNGLASSES = LearnedTarget("sunglasses")
PINK = LearnedTarget("pink hair", ("black hair", "gray hair", "red hair"))
DARK = LearnedTarget("sunglasses", excludes=("glasses", "a visor"))
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
        ("a person, glasses, red hair, a visor", None, DARK, ("a person, red hair, sunglasses", None)),
        ("a person, glasses", "glasses", DARK, ("a person, glasses, sunglasses", "glasses")),
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
        assert 7 < sum(row[target] for row in asks) < 25, "each alone and with others"
    assert 10 < sum(sum(row) == 1 for row in asks) < 25, "half of those that ask ask for one, and a few others do"
    assert {sum(row) for row in asks} == {0, 1, 2, 3}
    assert found == [text for text, _ in earlier.added_to(toy, TEXTS)]
    assert found != [text for text, _ in replace(earlier, seed=1).added_to(toy, TEXTS)]
    assert earlier.drawn(60) != earlier.drawn(60, draw=1)
    quarter = replace(earlier, share=0.25).added_to(toy, TEXTS)
    assert sum(new != old for new, old in zip(quarter, TEXTS, strict=True)) == 15


def test_a_text_that_asks_is_one_that_a_target_was_learned_with(toy: Backbone) -> None:
    own = ("a person, gray hair, blue hoodie", "a person, blue hoodie, a beard", "a person, black hair")
    dark, scarf = replace(DARK, texts=own), LearnedTarget("a scarf", texts=("a person, a cap",))
    earlier = EarlierTargets.of([dark, scarf, BLAZER], "a beard", 0.75, seed=0, replaces=["blue hoodie"])
    given = [("a person, smiling", None)] * 80
    rows = list(zip(earlier.drawn(80), earlier.added_to(toy, given), strict=True))
    found = dict(rows)
    assert found[()] == ("a person, smiling", None)
    assert found[scarf,] == ("a person, a cap, a scarf", None)
    assert found[BLAZER,] == ("a person, smiling, a blazer", None), "its adapter names no texts"
    starts = {text.split(", ")[1] for wanted, (text, _) in rows if wanted == (dark, scarf)}
    assert "a cap" in starts and starts <= {"a cap", "gray hair", "black hair"} and len(starts) > 1, starts
    assert {text for wanted, text in rows if wanted == (dark,)} == {
        ("a person, gray hair, blue hoodie, sunglasses", "blue hoodie"),
        ("a person, black hair, sunglasses", None),
    }, "never the text that holds what is learned now"


def test_long_texts_stay_without_the_target(toy: Backbone) -> None:
    earlier = EarlierTargets((SUNGLASSES,), "a beard", 0.5)
    long = ", ".join(["a person", *["smiling"] * 40])
    assert earlier.asked(toy, ["a person", long], SUNGLASSES) == ["a person, sunglasses", long]


def test_plain_texts_ask_for_none_of_the_earlier_targets(toy: Backbone) -> None:
    texts = ["a person, red hair", "a person, a beard, Sunglasses", "a person, pink hair", "a person, a beard"]
    items = [item(toy, text) for text in texts]
    earlier = EarlierTargets.of([SUNGLASSES, PINK], "a scarf", 0.5, seed=0)
    assert [one.is_plain for one in earlier.marked(items)] == [True, False, False, True]
    for unknown in (
        EarlierTargets.of([SUNGLASSES, None], "a scarf", 0.5, seed=0),
        EarlierTargets.of([SUNGLASSES], "a scarf", 0.5, seed=0, plain_texts=False),
        EarlierTargets(),
    ):
        assert not any(one.is_plain for one in unknown.marked(items))


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
