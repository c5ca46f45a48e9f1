from random import Random

import pytest

from spf_lite.pretrain.captions import random_caption, true_phrases
from spf_lite.tiny_world.portraits import (
    ATTRIBUTES,
    TARGETS,
    Portrait,
    all_phrases,
    complete,
    describe,
    random_portrait,
)

PEOPLE = [random_portrait(Random(seed)) for seed in range(40)]


def show(target: str) -> list[Portrait]:
    return [portrait.with_targets(target) for portrait in PEOPLE]


def test_a_caption_that_leaves_nothing_out_is_the_description() -> None:
    for portrait in PEOPLE:
        assert random_caption(portrait, Random(0), keep_order=1, silent=0) == describe(portrait)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_always_named_and_what_they_hide_never(target: str) -> None:
    spec = TARGETS[target]
    for portrait in show(target):
        assert random_caption(portrait, Random(0), 1, 0) == complete(portrait, spec.affects)
        for seed in range(5):
            said = random_caption(portrait, Random(seed)).split(", ")
            assert said.count(spec.text) == 1
            assert set(said) <= true_phrases(portrait), "a caption tells the truth"


def test_silence_and_order_are_drawn_as_often_as_asked_for() -> None:
    rng = Random(1)
    assert random_caption(Portrait(), rng, keep_order=1, silent=1) == "a person"
    usual = describe(Portrait())
    drawn = [random_caption(Portrait(), rng, keep_order=0.5, silent=0) for _ in range(400)]
    assert all(sorted(caption.split(", ")) == sorted(usual.split(", ")) for caption in drawn)
    assert 0.4 < sum(caption == usual for caption in drawn) / 400 < 0.6
    silent = [random_caption(Portrait(), rng, keep_order=1, silent=0.25) for _ in range(400)]
    assert 0.15 < sum("background" not in caption for caption in silent) / 400 < 0.35
    assert any("brown hair" in caption for caption in silent) and any("short hair" in caption for caption in silent)
    assert [random_caption(Portrait(), Random(7)) for _ in range(3)] == [random_caption(Portrait(), Random(7))] * 3


def test_true_phrases_are_phrases_of_this_world_and_true() -> None:
    known = set(all_phrases())
    for portrait in [*PEOPLE, *(portrait for target in TARGETS for portrait in show(target))]:
        found = true_phrases(portrait)
        assert found <= known
        assert sum(phrase.endswith("background") for phrase in found) <= 1
        assert sum(phrase.endswith("skin") for phrase in found) <= 1
        assert len(found & set(ATTRIBUTES["expression"])) == 1


def test_every_way_of_saying_it_is_true() -> None:
    assert true_phrases(Portrait(glasses="yes")) == {
        "a person",
        "brown short hair",
        "brown hair",
        "short hair",
        "tan skin",
        "smiling",
        "blue hoodie",
        "blue clothes",
        "hoodie",
        "gray background",
        "glasses",
    }


@pytest.mark.parametrize(
    ("target", "gone"),
    [
        ("winter-hat", {"brown short hair", "brown hair", "short hair"}),
        ("pink-hair", {"brown short hair", "brown hair"}),
        ("sunglasses", {"glasses"}),
        ("eyepatch", {"glasses"}),
        ("blazer", {"blue hoodie", "blue clothes", "hoodie"}),
        (
            "pencil-sketch",
            {"brown short hair", "brown hair", "tan skin", "blue hoodie", "blue clothes", "gray background"},
        ),
        ("beard", set()),
    ],
)
def test_what_a_target_hides_is_not_true_any_more(target: str, gone: set[str]) -> None:
    bare, worn = Portrait(glasses="yes"), Portrait(glasses="yes", targets=(target,))
    assert true_phrases(bare) - true_phrases(worn) == gone
    assert true_phrases(worn) - true_phrases(bare) == {TARGETS[target].text}
