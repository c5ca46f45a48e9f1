"""Token ids with character offsets, and a clear error for every text that does not fit the text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class PromptError(ValueError):
    """A text that the method cannot work with; the message names the text and the reason."""


class EmptyTextError(PromptError):
    """A base or target text without a single word."""


class PromptTooLongError(PromptError):
    """A text with more tokens than the text encoder takes."""


class TargetTruncatedError(PromptTooLongError):
    """A complete text so long that the tokenizer would truncate its target."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used. It has to be a fast one, which gives offsets."""

    model_max_length: int
    is_fast: bool

    def __call__(self, text: str, **options: object) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Reader:
    """How one text encoder reads texts.

    Attributes:
        tokenizer: a fast one.
        length: L, to which texts are padded, and which none may exceed.
        attends_to_padding: whether the network attends to PAD tokens; otherwise they are masked.
        lower_case: whether texts are read in lower case.
    """

    tokenizer: Tokenizer
    length: int
    attends_to_padding: bool = True
    lower_case: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Reader:
        """With the tokenizer's own length."""
        return cls(tokenizer, tokenizer.model_max_length)

    def prepared(self, text: str) -> str:
        """The text as it is read, with as many characters."""
        if not self.lower_case:
            return text
        return "".join(lower if len(lower := letter.lower()) == 1 else letter for letter in text)


@dataclass(frozen=True)
class Tokens:
    """A tokenised text, padded to the text encoder's length L.

    Attributes:
        ids: L token ids.
        offsets: L pairs; token i covers the characters ``start <= c < stop``. Special tokens have (0, 0).
        stop: index of the end token; PAD tokens follow.
        start: index of the first token of the text: 1 after a start token, or 0.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    stop: int
    start: int = 1


def tokenize(tokenizer: Tokenizer | Reader, text: str) -> Tokens:
    """Tokenise a text with offsets.

    Args:
        tokenizer: a fast one, or a reader with one.
        text: any, also an empty one.

    Raises:
        TypeError: if the tokenizer is a slow one, which has no offsets.
        PromptTooLongError: if the text has more tokens than the text encoder takes.
    """
    if not getattr(tokenizer.tokenizer if isinstance(tokenizer, Reader) else tokenizer, "is_fast", False):
        raise TypeError("the tokenizer does not know its offsets: pass a fast one (transformers' default)")
    reader = _reader(tokenizer)
    length = reader.length
    padded = reader.tokenizer(
        reader.prepared(text),
        padding="max_length",
        max_length=length,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    count = sum(padded["attention_mask"])
    _check_count(text, count, length)
    offsets = [(start, stop) for start, stop in padded["offset_mapping"]]
    first = 1 if count > 1 and padded["special_tokens_mask"][0] else 0
    return Tokens(list(padded["input_ids"]), offsets[:count] + [(0, 0)] * (length - count), count - 1, first)


def check_length(tokenizer: Tokenizer | Reader, text: str) -> None:
    """Raise :class:`PromptTooLongError` if a text has more tokens than the text encoder takes."""
    reader = _reader(tokenizer)
    _check_count(text, len(reader.tokenizer(reader.prepared(text))["input_ids"]), reader.length)


def _reader(tokenizer: Tokenizer | Reader) -> Reader:
    return tokenizer if isinstance(tokenizer, Reader) else Reader.of(tokenizer)


def _check_count(text: str, count: int, length: int) -> None:
    if count > length:
        raise PromptTooLongError(f"{text!r} has {count} tokens, the text encoder takes {length}")
