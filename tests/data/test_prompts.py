import re
import unicodedata
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from spf_lite.data.prompts import PhraseNotFoundError, PromptPair, Span, encode_pair, split_phrases
from spf_lite.models.tokenizer import (
    EmptyTextError,
    PromptError,
    PromptTooLongError,
    TargetTruncatedError,
    check_length,
)
from spf_lite.pretrain.text import build_tokenizer

from .strategies import prompt_pairs

BASE = "a person, red curly hair, blue hoodie, gray background"
TOKENIZER = build_tokenizer()


def says(tokenizer: CLIPTokenizer, ids: list[int], span: Span) -> str:
    return "".join(tokenizer.decode(ids[span.start : span.stop]).split())


def squeeze(text: str) -> str:
    """As the tokenizer sees it, without spaces: composed, and lower-cased letter by letter."""
    return "".join("".join(letter.lower() for letter in unicodedata.normalize("NFC", text)).split())


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
    with pytest.raises(TargetTruncatedError, match="'sunglasses' would be truncated"):
        encode_pair(tokenizer, " ".join(["hair"] * 29), "sunglasses")
    with pytest.raises(PhraseNotFoundError, match="'green hat' does not stand in the base text"):
        encode_pair(tokenizer, BASE, "a blazer", replaces="green hat")
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(TypeError, match="does not know its offsets"):
        encode_pair(slow, BASE, "sunglasses")


def test_a_token_that_its_new_neighbour_changes_has_no_counterpart() -> None:
    vocab, merges = TOKENIZER.get_vocab(), [("!", ",</w>")]
    glued = CLIPTokenizer(vocab={**vocab, "!,</w>": len(vocab)}, merges=merges, model_max_length=32)
    pair = encode_pair(glued, "a!", "b")
    assert glued.convert_ids_to_tokens(pair.base_ids.tolist())[1:3] == ["a</w>", "!</w>"]
    assert glued.convert_ids_to_tokens(pair.complete_ids.tolist())[1:4] == ["a</w>", "!,</w>", "b</w>"]
    assert [i for i in (1, 2) if i in dict(pair.alignment)] == [1], "the exclamation mark is another token now"
    assert list(pair.target.tokens) == [3]


# -- what holds for any text -------------------------------------------------------------------------------------------


def check(pair: PromptPair) -> None:
    """What holds for any pair at all."""
    length = TOKENIZER.model_max_length
    base, complete = pair.base_ids.tolist(), pair.complete_ids.tolist()
    assert len(base) == len(complete) == length
    assert pair.alignment[0] == (0, 0) and max(pair.alignment[-1]) == length - 1, "from the start to the last PAD token"
    for (i, j), (k, m) in zip(pair.alignment, pair.alignment[1:], strict=False):
        assert i < k and j < m
    for i, j in pair.alignment:
        assert base[i] == complete[j]
        assert j not in pair.target.tokens
    for phrase in pair.phrases:
        assert 0 < phrase.start < phrase.stop < length
        said, text = says(TOKENIZER, base, phrase), squeeze(phrase.text)
        # What is nowhere a whole word may begin or end within a token, and then has the whole token.
        within = not re.search(rf"(?<!\w){re.escape(phrase.text)}(?!\w)", pair.base_text)
        assert text in said if within else said == text
    assert 0 < pair.target.start < pair.target.stop < length
    assert says(TOKENIZER, complete, pair.target) == squeeze(pair.target_text)


def tokens_of(text: str) -> int:
    return len(TOKENIZER(text)["input_ids"])


words = st.text(min_size=1, max_size=8).filter(lambda word: word.strip() and "," not in word)
texts = st.lists(words, min_size=1, max_size=5).map(", ".join)


@settings(max_examples=200, deadline=None)
@given(base=texts, target=words)
@example(base="e\N{COMBINING ACUTE ACCENT}, \N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", target="\N{GRINNING FACE}!")
@example(base="\N{ZERO WIDTH SPACE}, a\N{NO-BREAK SPACE}b", target="\N{LATIN SMALL LETTER SHARP S}")
@example(base="'s, ..., 's", target="?!")
@example(base="<|endoftext|>, red", target="<|startoftext|>")
def test_any_text_is_aligned_or_refused_for_a_reason(base: str, target: str) -> None:
    try:
        pair = encode_pair(TOKENIZER, base, target)
    except PromptTooLongError:
        assert tokens_of(f"{base.strip()}, {target.strip()}") > TOKENIZER.model_max_length
    except EmptyTextError:
        assert min(map(tokens_of, [*split_phrases(base), target])) == 2, "start, end, and nothing between"
    else:
        check(pair)
        assert [phrase.text for phrase in pair.phrases] == split_phrases(base.strip())
        assert pair.complete_text == f"{pair.base_text}, {pair.target_text}"


@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(words.filter(lambda word: tokens_of(word) > 2), min_size=1, max_size=3), data=st.data())
def test_any_phrase_can_be_replaced(pieces: list[str], data: st.DataObject) -> None:
    replaces = data.draw(st.sampled_from(pieces))
    target = data.draw(words.filter(lambda word: tokens_of(word) > 2))
    try:
        pair = encode_pair(TOKENIZER, ", ".join(pieces), target, replaces=replaces)
    except PromptTooLongError:
        return
    check(pair)
    left = Counter(split_phrases(pair.complete_text))
    assert left + Counter([replaces.strip()]) == Counter(piece.strip() for piece in pieces) + Counter([target.strip()])


plain = st.sampled_from(["red", "hair", "a", "person", "blue", "hoodie", "hair", "t-shirt", "zebra", "x2!"])
phrase_lists = st.lists(st.lists(plain, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(phrases=phrase_lists, target=st.lists(plain, min_size=1, max_size=2).map(" ".join), data=st.data())
def test_every_token_that_both_texts_share_has_its_counterpart(
    phrases: list[str], target: str, data: st.DataObject
) -> None:
    replaces = data.draw(st.sampled_from([None, *phrases]))
    base = ", ".join(phrases)
    try:
        pair = encode_pair(TOKENIZER, base, target, replaces=replaces)
    except PromptTooLongError:
        return
    check(pair)
    stop = tokens_of(base) - 1
    lonely = set(range(stop)) - dict(pair.alignment).keys()
    if replaces is None:
        assert [phrase.text for phrase in pair.phrases] == phrases
        assert lonely == ({stop - 1} if base.endswith("!") else set()), "'!' at the end is not the '!' before a comma"
    else:
        before = ", ".join(phrases[: phrases.index(replaces)])
        start = tokens_of(f"{before},") - 1 if before else 1
        assert lonely == set(range(start, start + tokens_of(replaces) - 2))


@settings(max_examples=100, deadline=None)
@given(said=st.lists(plain, min_size=1, max_size=8), data=st.data())
def test_repeated_words_are_found_one_by_one(said: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.permutations(said))[: data.draw(st.integers(1, len(said)))]
    pair = encode_pair(TOKENIZER, " ".join(said), "b", phrases=chosen)
    check(pair)
    for word, times in Counter(chosen).items():
        spans = [phrase for phrase in pair.phrases if phrase.text == word]
        assert len(spans) == times
        assert len({index for span in spans for index in span.tokens}) == sum(len(span.tokens) for span in spans)
    with pytest.raises(PhraseNotFoundError):
        encode_pair(TOKENIZER, " ".join(said), "b", phrases=[said[0]] * (len(said) + 1))


@given(count=st.integers(1, 45))
def test_nothing_is_cut_off_silently(count: int) -> None:
    base, room = " ".join(["hair"] * count), TOKENIZER.model_max_length - 2
    if count <= room - 2:
        pair = encode_pair(TOKENIZER, base, "sunglasses")
        check(pair)
        assert len(pair.phrases[0].tokens) == count
    elif count <= room:
        check_length(TOKENIZER, base)
        with pytest.raises(TargetTruncatedError):
            encode_pair(TOKENIZER, base, "sunglasses")
    else:
        for refused in (lambda: check_length(TOKENIZER, base), lambda: encode_pair(TOKENIZER, base, "sunglasses")):
            with pytest.raises(PromptTooLongError) as raised:
                refused()
            assert raised.type is PromptTooLongError, "it is the base text that is too long"


def test_a_phrase_that_is_a_word_is_not_looked_for_inside_other_words() -> None:
    with pytest.raises(PhraseNotFoundError, match="'a' does not stand"):
        encode_pair(TOKENIZER, "a, woman", "sunglasses", phrases=["a", "a"])
    (inside,) = encode_pair(TOKENIZER, "woman", "sunglasses", phrases=["a"]).phrases
    assert inside.text == "a"


@settings(max_examples=300, deadline=None)
@given(arguments=prompt_pairs())
def test_any_arguments_make_a_pair_or_a_prompt_error(arguments: dict[str, Any]) -> None:
    try:
        pair = encode_pair(TOKENIZER, **arguments)
    except PromptError as error:
        assert str(error)
    else:
        check(pair)
        assert pair.target_text in pair.complete_text and pair.base_text == arguments["base_text"].strip()
        assert all(phrase.text in pair.base_text for phrase in pair.phrases)
