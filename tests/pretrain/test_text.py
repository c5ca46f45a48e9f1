from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from spf_lite.pretrain.text import MAX_LENGTH, build_tokenizer, learn_merges, random_caption, true_phrases
from spf_lite.tiny_world.portraits import (
    ATTRIBUTES,
    TARGETS,
    Portrait,
    all_phrases,
    complete,
    describe,
    random_portrait,
)

TOKENIZER = build_tokenizer()
PEOPLE = [random_portrait(Random(seed)) for seed in range(40)]


# -- tokenizer ---------------------------------------------------------------------------------------------------------


def pieces(text: str) -> list[str]:
    """The tokens of a text without its ends."""
    tokens: list[str] = TOKENIZER.convert_ids_to_tokens(TOKENIZER(text).input_ids)
    return tokens[1:-1]


def squeeze(text: str) -> str:
    return "".join(text.lower().split())


def test_every_word_of_the_world_is_one_token() -> None:
    for phrase in all_phrases():
        words = phrase.replace("-", " - ").split()
        assert pieces(phrase) == [f"{word}</w>" for word in words]


def test_captions_come_back() -> None:
    caption = ", ".join(all_phrases()[:4]) + ", a blazer"
    assert squeeze(TOKENIZER.decode(TOKENIZER(caption).input_ids, skip_special_tokens=True)) == squeeze(caption)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20))
def test_any_other_text_is_spelled_out_and_comes_back(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert squeeze(TOKENIZER.decode(ids[1:-1], clean_up_tokenization_spaces=False)) == squeeze(text)
    assert max(ids) < len(TOKENIZER)


@pytest.mark.parametrize("word", ["zebra", "ß", "眼镜", "🙂"])
def test_nothing_is_unknown(word: str) -> None:
    ids = TOKENIZER(word).input_ids[1:-1]
    assert len(ids) > 1, "in pieces"
    assert not set(ids) & {TOKENIZER.bos_token_id, TOKENIZER.eos_token_id}


def test_ends_and_padding_are_those_of_clip() -> None:
    ids = TOKENIZER("glasses", padding="max_length").input_ids
    assert len(ids) == TOKENIZER.model_max_length == MAX_LENGTH
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[2] == TOKENIZER.eos_token_id and set(ids[3:]) == {TOKENIZER.pad_token_id}


def test_it_is_made_the_same_every_time_and_survives_saving(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(folder)
    for again in (build_tokenizer(), CLIPTokenizer.from_pretrained(folder)):
        assert again.get_vocab() == TOKENIZER.get_vocab()
        assert again("a person, zebra t-shirt").input_ids == TOKENIZER("a person, zebra t-shirt").input_ids
        assert again.model_max_length == TOKENIZER.model_max_length


def test_ids_are_the_same_in_every_process() -> None:
    # Written down, because a checkpoint of CLIP that is taken up again must find the ids that it was trained on.
    assert TOKENIZER("a person, red hair, t-shirt").input_ids == [677, 320, 650, 267, 656, 623, 267, 339, 268, 659, 678]


def test_merges_are_learned_by_frequency_and_ties_by_the_alphabet() -> None:
    assert learn_merges(["ab", "ab", "cab"]) == [("a", "b</w>"), ("c", "ab</w>")]
    assert learn_merges(["dc", "ba"]) == [("b", "a</w>"), ("d", "c</w>")]
    assert learn_merges(["a"]) == []


# -- captions ----------------------------------------------------------------------------------------------------------


def show(target: str) -> list[Portrait]:
    return [portrait.with_targets(target) for portrait in PEOPLE]


def test_a_caption_that_leaves_nothing_out_is_the_description() -> None:
    for portrait in PEOPLE:
        assert random_caption(portrait, Random(0), keep_order=1, leave_out=0) == describe(portrait)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_always_named_and_what_they_hide_never(target: str) -> None:
    spec = TARGETS[target]
    for portrait in show(target):
        assert random_caption(portrait, Random(0), 1, 0) == complete(portrait, spec.affects)
        for seed in range(5):
            said = random_caption(portrait, Random(seed)).split(", ")
            assert said.count(spec.text) == 1
            assert set(said) <= true_phrases(portrait), "a caption tells the truth"


def test_phrases_are_left_out_and_reordered_as_often_as_asked_for() -> None:
    rng = Random(1)
    assert random_caption(Portrait(), rng, keep_order=1, leave_out=1) == "a person"
    usual = describe(Portrait())
    drawn = [random_caption(Portrait(), rng, keep_order=0.5, leave_out=0) for _ in range(400)]
    assert all(sorted(caption.split(", ")) == sorted(usual.split(", ")) for caption in drawn)
    assert 0.4 < sum(caption == usual for caption in drawn) / 400 < 0.6
    silent = [random_caption(Portrait(), rng, keep_order=1, leave_out=0.25) for _ in range(400)]
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
