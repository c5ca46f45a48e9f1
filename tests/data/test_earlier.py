"""Reference texts that ask for what was learned before."""

import pytest

from spf_lite.data.earlier import asking_for, asking_for_earlier
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
    earlier = [SUNGLASSES, PINK, BLAZER]
    found = [text for text, _ in asking_for_earlier(toy, TEXTS, "a beard", earlier, 0.5, seed=0)]
    asks = [[target.text in text for target in earlier] for text in found]
    assert [any(row) for row in asks] == [False, True] * 30, "evenly spread"
    assert [text for text, _ in TEXTS[::2]] == found[::2]
    for target in range(3):
        assert 10 < sum(row[target] for row in asks) < 25, "with probability one half each"
    assert len({tuple(row) for row in asks}) == 8, "alone and together"
    again = [text for text, _ in asking_for_earlier(toy, TEXTS, "a beard", earlier, 0.5, seed=0)]
    other = [text for text, _ in asking_for_earlier(toy, TEXTS, "a beard", earlier, 0.5, seed=1)]
    assert found == again != other
    quarter = asking_for_earlier(toy, TEXTS, "a beard", earlier, 0.25, seed=0)
    assert sum(new != old for new, old in zip(quarter, TEXTS, strict=True)) == 15


def test_nothing_asks_for_what_is_learned_now_or_for_nothing(toy: Backbone) -> None:
    assert asking_for_earlier(toy, TEXTS, "sunglasses", [SUNGLASSES], 1.0, seed=0) == TEXTS
    assert asking_for_earlier(toy, TEXTS, "sunglasses", [], 1.0, seed=0) == TEXTS
    assert asking_for_earlier(toy, TEXTS, "a beard", [SUNGLASSES], 0.0, seed=0) == TEXTS


def test_a_text_stays_as_long_as_the_text_encoder_takes(toy: Backbone) -> None:
    length = toy.pipe.tokenizer.model_max_length
    full = ", ".join(["a person", *["smiling"] * length])
    while True:  # the longest text that still has room for the target
        full = full.rpartition(", ")[0]
        (text, _) = asking_for_earlier(toy, [(full, None)], "sunglasses", [LearnedTarget("red hair")], 1.0, seed=0)[0]
        if text != full:
            break
    shorter = full
    longer = f"{full}, smiling, smiling"
    assert text == f"{shorter}, red hair"
    assert asking_for_earlier(toy, [(longer, None)], "sunglasses", [LearnedTarget("red hair")], 1.0, seed=0) == [
        (longer, None)
    ]
