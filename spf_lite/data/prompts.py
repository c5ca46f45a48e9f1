"""From texts to tokens: which tokens make up a phrase, and which tokens of base and complete text correspond.

The *base text* is the prompt without the target. The *complete text* is the base text with the target added, or put in
the place of the phrase that it replaces. The method compares both paths token by token, so the two texts are aligned:
a token of the base text is paired with its counterpart in the complete text, and so are start, end and PAD tokens.

All spans come from the tokenizer's offsets, never from counting characters or words.

Source: SPF-Portrait (arXiv 2504.00396), which compares the attention maps of base tokens and PAD tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from spf_lite.models.tokenizer import (
    EmptyTextError,
    PromptError,
    PromptTooLongError,
    TargetTruncatedError,
    Tokenizer,
    Tokens,
    tokenize,
)


class PhraseNotFoundError(PromptError):
    """A phrase is not part of the base text."""


@dataclass(frozen=True)
class Span:
    """A phrase and its tokens ``start <= i < stop``."""

    text: str
    start: int
    stop: int

    @property
    def tokens(self) -> range:
        """The indices of its tokens."""
        return range(self.start, self.stop)


@dataclass(frozen=True)
class PromptPair:
    """A base text and a complete text, tokenised and aligned.

    Attributes:
        base_text: the prompt of the reference path.
        target_text: the attribute to learn.
        complete_text: the prompt of the response path.
        base_ids: token ids (L,), padded to the length that the text encoder takes.
        complete_ids: token ids (L,).
        phrases: the phrases of the base text that the control map protects, as spans of ``base_ids``. A phrase that
            the target replaces is not among them.
        target: the target as a span of ``complete_ids``.
        alignment: pairs (index in ``base_ids``, index in ``complete_ids``): start token, shared tokens, end token and
            as many PAD tokens as both have.
        replaces: the phrase of the base text that the target takes the place of.
    """

    base_text: str
    target_text: str
    complete_text: str
    base_ids: Tensor
    complete_ids: Tensor
    phrases: tuple[Span, ...]
    target: Span
    alignment: tuple[tuple[int, int], ...]
    replaces: str | None = None


def _span(tokens: Tokens, text: str, start: int, stop: int) -> Span:
    """The tokens that overlap the characters ``start <= c < stop``."""
    inside = [i for i in range(1, tokens.stop) if tokens.offsets[i][0] < stop and tokens.offsets[i][1] > start]
    if not inside:
        raise EmptyTextError(f"{text!r} has no token of its own")
    return Span(text, inside[0], inside[-1] + 1)


def split_phrases(base_text: str) -> list[str]:
    """The default phrases of a base text: its comma-separated parts."""
    return [base_text[start:stop] for start, stop in _between_commas(base_text)]


def _between_commas(base_text: str) -> list[tuple[int, int]]:
    places, start = [], 0
    for piece in base_text.split(","):
        if piece.strip():
            first = start + len(piece) - len(piece.lstrip())
            places.append((first, first + len(piece.strip())))
        start += len(piece) + 1
    return places


def _find(base_text: str, phrase: str, after: int) -> int:
    """Index of a phrase's first character at or after ``after``; -1: it is not there.

    A phrase between two commas comes first, then whole words, then any match: for "a", "red hair, a" gives the last
    word, not a letter of "hair".
    """
    if not phrase:
        return -1
    for start, stop in _between_commas(base_text):
        if start >= after and base_text[start:stop] == phrase:
            return start
    word = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)").search(base_text, after)
    return word.start() if word else base_text.find(phrase, after)


def _locate(base_text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """Start and stop character of each phrase. A phrase that is listed twice is looked up twice, the second time after
    the first."""
    places: list[tuple[int, int]] = []
    after: dict[str, int] = {}
    for phrase in phrases:
        start = _find(base_text, phrase, after.get(phrase, 0))
        if start < 0:
            raise PhraseNotFoundError(f"{phrase!r} does not stand in the base text {base_text!r}")
        after[phrase] = start + len(phrase)
        places.append((start, start + len(phrase)))
    return places


def encode_pair(
    tokenizer: Tokenizer,
    base_text: str,
    target_text: str,
    *,
    replaces: str | None = None,
    phrases: Sequence[str] | None = None,
) -> PromptPair:
    """Tokenise and align a base text and its complete text.

    Args:
        tokenizer: the pipeline's tokenizer.
        base_text: the prompt without the target.
        target_text: the attribute to learn; appended after a comma, or put in the place of ``replaces``.
        replaces: the phrase of the base text that the target takes the place of.
        phrases: the phrases to protect (default: the comma-separated parts of the base text).

    Raises:
        EmptyTextError: if a text is empty.
        PhraseNotFoundError: if ``replaces`` or one of ``phrases`` does not stand in the base text.
        PromptTooLongError: if the base text is too long for the text encoder.
        TargetTruncatedError: if the complete text is.
    """
    for name, text in (("base", base_text), ("target", target_text)):
        if not text.strip():
            raise EmptyTextError(f"the {name} text is empty")
    base_text, target_text = base_text.strip(), target_text.strip()
    places = _between_commas(base_text) if phrases is None else _locate(base_text, phrases)
    if replaces is None:
        cut = (len(base_text), len(base_text))
        joined = ", "
    else:
        (cut,) = _locate(base_text, [replaces.strip()])
        joined = ""
    complete_text = base_text[: cut[0]] + joined + target_text + base_text[cut[1] :]
    target_place = (cut[0] + len(joined), cut[0] + len(joined) + len(target_text))

    base = tokenize(tokenizer, base_text)
    try:
        complete = tokenize(tokenizer, complete_text)
    except PromptTooLongError as error:
        raise TargetTruncatedError(f"the target {target_text!r} would be truncated: {error}") from None
    protected = [
        _span(base, base_text[slice(*place)], *place)
        for place in places
        if replaces is None or place[1] <= cut[0] or place[0] >= cut[1]
    ]
    return PromptPair(
        base_text,
        target_text,
        complete_text,
        torch.tensor(base.ids),
        torch.tensor(complete.ids),
        tuple(protected),
        _span(complete, target_text, *target_place),
        _align(base, complete, cut, len(joined) + len(target_text) - (cut[1] - cut[0])),
        None if replaces is None else replaces.strip(),
    )


def _align(base: Tokens, complete: Tokens, cut: tuple[int, int], shift: int) -> tuple[tuple[int, int], ...]:
    """Pair tokens by their characters: those before the cut keep their place, those after it move by ``shift``.

    A token that the cut splits, or that the tokenizer merges with its new neighbour, has no counterpart.
    """
    at = {
        (complete.offsets[i], complete.ids[i], _rank(complete.offsets, i)): i for i in range(1, complete.stop)
    }  # byte-level tokens of one character share their offsets: the rank tells them apart
    pairs = [(0, 0)]
    for i in range(1, base.stop):
        start, stop = base.offsets[i]
        moved = (start, stop) if stop <= cut[0] else (start + shift, stop + shift) if start >= cut[1] else None
        j = at.get((moved, base.ids[i], _rank(base.offsets, i))) if moved is not None else None
        if j is not None:
            pairs.append((i, j))
    ends = zip(range(base.stop, len(base.ids)), range(complete.stop, len(complete.ids)), strict=False)
    pairs.extend(ends)  # the end token, then the PAD tokens
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    return tuple(pairs)


def _rank(offsets: Sequence[tuple[int, int]], index: int) -> int:
    """How many tokens before this one cover the very same characters."""
    rank = 0
    while index - rank > 0 and offsets[index - rank - 1] == offsets[index]:
        rank += 1
    return rank
