from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from spf_lite.models.tokenizer import (
    EmptyTextError,
    PromptError,
    PromptTooLongError,
    TargetTruncatedError,
    check_length,
    tokenize,
)
from spf_lite.pretrain.text import build_tokenizer

TINY = build_tokenizer()


def test_offsets_point_into_the_text(tokenizer: CLIPTokenizer) -> None:
    text = "a person, red hair"
    tokens = tokenize(tokenizer, text)
    assert len(tokens.ids) == len(tokens.offsets) == tokenizer.model_max_length
    assert "".join(text[start:stop] for start, stop in tokens.offsets) == text.replace(" ", "")
    assert tokens.ids[tokens.stop] == tokenizer.eos_token_id
    assert set(tokens.ids[tokens.stop + 1 :]) == {tokenizer.pad_token_id}
    assert set(tokens.offsets[tokens.stop :]) == {(0, 0)} == {tokens.offsets[0]}


@given(st.text())
def test_any_text_is_tokenised_or_named_as_too_long(text: str) -> None:
    try:
        tokens = tokenize(TINY, text)
    except PromptTooLongError as error:
        assert repr(text) in str(error)
        with pytest.raises(PromptTooLongError):
            check_length(TINY, text)
        return
    check_length(TINY, text)
    assert len(tokens.ids) == TINY.model_max_length
    assert all(0 <= start <= stop <= len(text) for start, stop in tokens.offsets)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        model_max_length, is_fast = 8, False

        def __call__(self, text: str, **options: object) -> Mapping[str, Any]:
            raise AssertionError("it is refused before it is asked")

    with pytest.raises(TypeError, match="pass a fast one"):
        tokenize(Slow(), "a person")


def test_every_error_of_a_text_is_a_prompt_error() -> None:
    for kind in (EmptyTextError, PromptTooLongError, TargetTruncatedError):
        assert issubclass(kind, PromptError) and issubclass(kind, ValueError)
