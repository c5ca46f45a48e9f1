import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from spf_lite.pretrain import tokenizer as tiny_tokenizer
from spf_lite.pretrain.tokenizer import learn_merges
from spf_lite.tiny_world.portraits import all_phrases

TOKENIZER = tiny_tokenizer.build()


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
    assert len(ids) == TOKENIZER.model_max_length == tiny_tokenizer.MAX_LENGTH
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[2] == TOKENIZER.eos_token_id and set(ids[3:]) == {TOKENIZER.pad_token_id}


def test_it_is_made_the_same_every_time_and_survives_saving(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(folder)
    for again in (tiny_tokenizer.build(), CLIPTokenizer.from_pretrained(folder)):
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
