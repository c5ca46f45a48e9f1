import pytest
import torch

from spf_lite.pure_pairs.vocabulary import Vocabulary

TEXTS = [
    "a person, red hair, smiling, blue hoodie, glasses",
    "a person, brown hair, sad, red hoodie",
    "a person, brown hair, sad, red hoodie, glasses",
]


def test_phrases_of_one_place_exclude_each_other() -> None:
    vocabulary = Vocabulary(TEXTS)
    assert vocabulary.phrases == {
        0: ["a person"],
        1: ["red hair", "brown hair"],
        2: ["smiling", "sad"],
        3: ["blue hoodie", "red hoodie"],
        4: ["glasses"],
    }
    assert vocabulary.filled_by("a person, sad, a parrot") == {0, 2}


def test_a_phrase_that_moves_has_the_median_of_its_places() -> None:
    vocabulary = Vocabulary(["a, b, c", "a, c", "a, b, c", "c"])
    assert vocabulary.places == {"a": 0, "b": 1, "c": 1}, "c stands at 0, 1, 2, 2: the lower median is 1"


def test_insertions_stand_where_their_place_is() -> None:
    vocabulary = Vocabulary(TEXTS)
    assert vocabulary.insert("a person, red hair", {4: "glasses", 2: "sad"}) == "a person, red hair, sad, glasses"
    assert vocabulary.insert("a person, blue hoodie", {1: "red hair", 2: None}) == "a person, red hair, blue hoodie"
    assert vocabulary.insert("a person, a parrot", {2: "sad"}) == "a person, a parrot, sad", "unknown: keeps its place"
    assert vocabulary.insert("a person", {}) == "a person"


def test_drawn_phrases_come_from_one_text() -> None:
    vocabulary, generator = Vocabulary(TEXTS), torch.Generator().manual_seed(0)
    drawn = [vocabulary.draw([2, 3, 4], generator) for _ in range(30)]
    assert {tuple(one.values()) for one in drawn} == {
        ("smiling", "blue hoodie", "glasses"),
        ("sad", "red hoodie", None),
        ("sad", "red hoodie", "glasses"),
    }


def test_no_text_is_no_vocabulary() -> None:
    with pytest.raises(ValueError, match="needs base texts"):
        Vocabulary([])
