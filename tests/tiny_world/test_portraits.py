from random import Random

import pytest

from spf_lite.tiny_world.portraits import (
    ATTRIBUTES,
    TARGETS,
    Portrait,
    all_phrases,
    complete,
    describe,
    get_target,
    phrases,
    random_portrait,
)


def test_caption_names_every_attribute() -> None:
    portrait = Portrait(hair_style="curly", hair_color="red", skin="brown", glasses="yes")
    assert describe(portrait) == "a person, red curly hair, brown skin, smiling, blue hoodie, gray background, glasses"


def test_silence_is_per_attribute() -> None:
    portrait = Portrait(hair_style="curly", hair_color="red")
    assert phrases(portrait, ["hair_color"])["hair_style"] == "curly hair"
    assert phrases(portrait, ["hair_style"])["hair_style"] == "red hair"
    assert phrases(portrait, ["clothes"])["clothes"] == "blue clothes"
    assert describe(portrait, list(ATTRIBUTES)) == "a person"
    with pytest.raises(ValueError, match="cannot leave out nose"):
        describe(portrait, ["nose"])


def test_targets_are_added_or_take_a_place() -> None:
    assert complete(Portrait().with_targets("sunglasses")).endswith("gray background, sunglasses")
    replaced = complete(Portrait().with_targets("blazer"))
    assert "a blazer" in replaced and "hoodie" not in replaced
    assert {target.kind for target in TARGETS.values()} == {"addition", "replacement", "style"}
    assert len(TARGETS) == 7


def test_random_portraits_are_deterministic_and_cover_every_value() -> None:
    assert random_portrait(Random(3)) == random_portrait(Random(3))
    rng = Random(0)
    drawn = [random_portrait(rng) for _ in range(400)]
    for name, values in ATTRIBUTES.items():
        assert {getattr(portrait, name) for portrait in drawn} == set(values)
    assert random_portrait(Random(0), skin="dark").skin == "dark"


def test_every_phrase_of_a_caption_is_in_the_vocabulary() -> None:
    known = set(all_phrases())
    rng = Random(1)
    for target in TARGETS:
        said = complete(random_portrait(rng).with_targets(target)).split(", ")
        assert set(said) <= known


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="skin='green': expected one of pale"):
        Portrait(skin="green")
    with pytest.raises(ValueError, match="unknown target 'monocle'.*sunglasses"):
        get_target("monocle")
    with pytest.raises(ValueError, match="not both"):
        Portrait(targets=("sunglasses", "eyepatch"))
    with pytest.raises(TypeError, match="no such attribute: hat"):
        random_portrait(Random(0), hat="yes")
