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
class Tokens:
    """A tokenised text, padded to the text encoder's length L.

    Attributes:
        ids: L token ids.
        offsets: L pairs; token i covers the characters ``start <= c < stop``. Special tokens have (0, 0).
        stop: index of the end token; PAD tokens follow.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    stop: int


def tokenize(tokenizer: Tokenizer, text: str) -> Tokens:
    """Tokenise a text with offsets.

    Args:
        tokenizer: a fast one.
        text: any, also an empty one.

    Raises:
        TypeError: if the tokenizer is a slow one, which has no offsets.
        PromptTooLongError: if the text has more tokens than the text encoder takes.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError("the tokenizer does not know its offsets: pass a fast one (transformers' default)")
    length = tokenizer.model_max_length
    padded = tokenizer(text, padding="max_length", max_length=length, return_offsets_mapping=True)
    count = sum(padded["attention_mask"])
    _check_count(text, count, length)
    offsets = [(start, stop) for start, stop in padded["offset_mapping"]]
    return Tokens(list(padded["input_ids"]), offsets[:count] + [(0, 0)] * (length - count), count - 1)


def check_length(tokenizer: Tokenizer, text: str) -> None:
    """Raise :class:`PromptTooLongError` if a text has more tokens than the text encoder takes."""
    _check_count(text, len(tokenizer(text)["input_ids"]), tokenizer.model_max_length)


def _check_count(text: str, count: int, length: int) -> None:
    if count > length:
        raise PromptTooLongError(f"{text!r} has {count} tokens, the text encoder takes {length}")
