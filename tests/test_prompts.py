import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from spf_lite.pretrain import tokenizer as tiny_tokenizer
from spf_lite.prompts import (
    EmptyTextError,
    PhraseNotFoundError,
    PromptError,
    PromptPair,
    PromptTooLongError,
    Span,
    TargetCutOffError,
    encode_pair,
    split_phrases,
)

BASE = "a person, red curly hair, blue hoodie, gray background"
TOKENIZER = tiny_tokenizer.build()


def says(tokenizer: CLIPTokenizer, ids: list[int], span: Span) -> str:
    return "".join(tokenizer.decode(ids[span.start : span.stop]).split())


def squeeze(text: str) -> str:
    return "".join(text.lower().split())


def test_an_addition_is_appended(tokenizer: CLIPTokenizer) -> None:
    pair = encode_pair(tokenizer, BASE, "sunglasses")
    assert pair.complete_text == BASE + ", sunglasses"
    assert [phrase.text for phrase in pair.phrases] == split_phrases(BASE)
    for phrase in pair.phrases:
        assert says(tokenizer, pair.base_ids.tolist(), phrase) == squeeze(phrase.text)
    assert says(tokenizer, pair.complete_ids.tolist(), pair.target) == "sunglasses"
    assert len(pair.base_ids) == len(pair.complete_ids) == tokenizer.model_max_length


def test_alignment_pairs_equal_tokens_and_the_pad_tokens(tokenizer: CLIPTokenizer) -> None:
    pair = encode_pair(tokenizer, BASE, "sunglasses")
    assert pair.alignment[0] == (0, 0)
    for i, j in pair.alignment:
        assert pair.base_ids[i] == pair.complete_ids[j]
    paired_in_complete = {j for _, j in pair.alignment}
    assert not paired_in_complete & set(pair.target.tokens)
    pads = [(i, j) for i, j in pair.alignment if pair.base_ids[i] == tokenizer.pad_token_id]
    assert len(pads) >= 5 and all(j == i + 2 for i, j in pads), "', sunglasses' are two more tokens"


def test_a_replacement_takes_the_place_of_its_phrase(tokenizer: CLIPTokenizer) -> None:
    pair = encode_pair(tokenizer, BASE, "a blazer", replaces="blue hoodie")
    assert pair.complete_text == "a person, red curly hair, a blazer, gray background"
    assert "blue hoodie" not in [phrase.text for phrase in pair.phrases]
    background = next(phrase for phrase in pair.phrases if phrase.text == "gray background")
    counterpart = dict(pair.alignment)
    assert [pair.complete_ids[counterpart[i]] for i in background.tokens] == [
        pair.base_ids[i] for i in background.tokens
    ]


def test_phrases_that_stand_twice_are_found_twice(tokenizer: CLIPTokenizer) -> None:
    pair = encode_pair(tokenizer, "hair, red hair, hair", "sunglasses")
    assert [phrase.text for phrase in pair.phrases] == ["hair", "red hair", "hair"]
    assert [(phrase.start, phrase.stop) for phrase in pair.phrases] == [(1, 2), (3, 5), (6, 7)]
    given = encode_pair(tokenizer, "hair, red hair", "sunglasses", phrases=["hair", "hair"])
    assert [phrase.start for phrase in given.phrases] == [1, 4]


def test_a_phrase_is_not_looked_for_inside_a_word(tokenizer: CLIPTokenizer) -> None:
    pair = encode_pair(tokenizer, "red, hair, a", "sunglasses", replaces="a")
    assert pair.complete_text == "red, hair, sunglasses"
    assert encode_pair(tokenizer, "gray hat, a hat", "a cap", replaces="a").complete_text == "gray hat, a cap hat"
    assert encode_pair(tokenizer, "redhair", "pink", replaces="red").complete_text == "pinkhair", "the last resort"


def test_bad_texts_have_their_own_errors(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(EmptyTextError, match="target text is empty"):
        encode_pair(tokenizer, BASE, "  ")
    with pytest.raises(EmptyTextError, match="base text is empty"):
        encode_pair(tokenizer, "", "sunglasses")
    with pytest.raises(PromptTooLongError, match="has 42 tokens, the text encoder takes 32"):
        encode_pair(tokenizer, " ".join(["hair"] * 40), "sunglasses")
    with pytest.raises(TargetCutOffError, match="'sunglasses' would be cut off"):
        encode_pair(tokenizer, " ".join(["hair"] * 29), "sunglasses")
    with pytest.raises(PhraseNotFoundError, match="'green hat' does not stand in the base text"):
        encode_pair(tokenizer, BASE, "a blazer", replaces="green hat")
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(TypeError, match="does not know its offsets"):
        encode_pair(slow, BASE, "sunglasses")


def check(pair: PromptPair) -> None:
    """What holds for any pair at all."""
    length = TOKENIZER.model_max_length
    assert len(pair.base_ids) == len(pair.complete_ids) == length
    assert pair.alignment[0] == (0, 0)
    for (i, j), (k, m) in zip(pair.alignment, pair.alignment[1:], strict=False):
        assert i < k and j < m
    for i, j in pair.alignment:
        assert pair.base_ids[i] == pair.complete_ids[j]
        assert j not in pair.target.tokens
    for phrase in pair.phrases:
        assert 0 < phrase.start < phrase.stop < length


words = st.text(min_size=1, max_size=8).filter(lambda word: word.strip() and "," not in word)
texts = st.lists(words, min_size=1, max_size=5).map(", ".join)


@settings(max_examples=150, deadline=None)
@given(base=texts, target=words)
def test_any_text_either_aligns_or_is_refused(base: str, target: str) -> None:
    try:
        pair = encode_pair(TOKENIZER, base, target)
    except PromptError:
        return
    check(pair)


plain = st.sampled_from(["red", "hair", "a", "person", "blue", "hoodie", "hair", "t-shirt", "zebra", "x2!"])
phrase_lists = st.lists(st.lists(plain, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(phrases=phrase_lists, target=st.lists(plain, min_size=1, max_size=2).map(" ".join), data=st.data())
def test_every_span_decodes_back_to_its_phrase(phrases: list[str], target: str, data: st.DataObject) -> None:
    replaces = data.draw(st.sampled_from([None, *phrases]))
    try:
        pair = encode_pair(TOKENIZER, ", ".join(phrases), target, replaces=replaces)
    except PromptTooLongError:
        return
    check(pair)
    for phrase in pair.phrases:
        assert says(TOKENIZER, pair.base_ids.tolist(), phrase) == squeeze(phrase.text)
    assert says(TOKENIZER, pair.complete_ids.tolist(), pair.target) == squeeze(target)
    if replaces is None:
        assert [phrase.text for phrase in pair.phrases] == phrases
