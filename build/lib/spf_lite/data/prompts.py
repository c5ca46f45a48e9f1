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
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from spf_lite.models.tokenizer import (
    EmptyTextError,
    PromptError,
    PromptTooLongError,
    Reader,
    TargetTruncatedError,
    Tokenizer,
    Tokens,
    tokenize,
)


class PhraseNotFoundError(PromptError):
    """A phrase is not part of the base text."""


@dataclass(frozen=True)
class Span:
    """A phrase and its tokens: ``start <= i < stop``, and those that further text encoders read of it."""

    text: str
    start: int
    stop: int
    further: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The indices of its tokens."""
        return (*range(self.start, self.stop), *self.further)


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
    inside = [
        i for i in range(tokens.start, tokens.stop) if tokens.offsets[i][0] < stop and tokens.offsets[i][1] > start
    ]
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

    A phrase between two commas comes first, then whole words: for "a", "red hair, a" gives the last word, not a letter
    of "hair". Only a phrase that is nowhere a whole word is looked for inside words.
    """
    if not phrase:
        return -1
    for start, stop in _between_commas(base_text):
        if start >= after and base_text[start:stop] == phrase:
            return start
    whole = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")
    if word := whole.search(base_text, after):
        return word.start()
    return -1 if whole.search(base_text) else base_text.find(phrase, after)


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
    tokenizer: Tokenizer | Reader,
    base_text: str,
    target_text: str,
    *,
    replaces: str | None = None,
    phrases: Sequence[str] | None = None,
) -> PromptPair:
    """Tokenise and align a base text and its complete text.

    Args:
        tokenizer: a tokenizer of the pipeline, or how one of its text encoders reads.
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
        between = ", "
    else:
        (cut,) = _locate(base_text, [replaces.strip()])
        between = ""
    complete_text = base_text[: cut[0]] + between + target_text + base_text[cut[1] :]
    target_place = (cut[0] + len(between), cut[0] + len(between) + len(target_text))

    base = tokenize(tokenizer, base_text)
    try:
        complete = tokenize(tokenizer, complete_text)
    except PromptTooLongError as error:
        raise TargetTruncatedError(f"the target {target_text!r} would be truncated: {error}") from None
    padding = tokenizer.attends_to_padding if isinstance(tokenizer, Reader) else True
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
        _align(base, complete, cut, len(between) + len(target_text) - (cut[1] - cut[0]), padding),
        None if replaces is None else replaces.strip(),
    )


def joined(pairs: Sequence[PromptPair], blank: int = 0) -> PromptPair:
    """One pair of texts, as several text encoders read it.

    Args:
        pairs: the same texts, tokenised by each of them.
        blank: number of further rows without a token, which attention sees as padding.

    Returns:
        A pair whose ids are those of all of them, one after the other, zeros for blank rows.
    """
    if len(pairs) == 1 and not blank:
        return pairs[0]
    first, offset = pairs[0], 0
    phrases: list[list[int]] = [[] for _ in first.phrases]
    target: list[int] = []
    alignment: list[tuple[int, int]] = []
    for pair in pairs:
        for tokens, phrase in zip(phrases, pair.phrases, strict=True):
            tokens.extend(offset + i for i in phrase.tokens)
        target.extend(offset + i for i in pair.target.tokens)
        alignment.extend((offset + i, offset + j) for i, j in pair.alignment)
        offset += len(pair.base_ids)
    alignment.extend((i, i) for i in range(offset, offset + blank))
    none = torch.zeros(blank, dtype=first.base_ids.dtype)
    return replace(
        first,
        base_ids=torch.cat([*(pair.base_ids for pair in pairs), none]),
        complete_ids=torch.cat([*(pair.complete_ids for pair in pairs), none]),
        phrases=tuple(_with_further(span, tokens) for span, tokens in zip(first.phrases, phrases, strict=True)),
        target=_with_further(first.target, target),
        alignment=tuple(alignment),
    )


def _with_further(span: Span, tokens: Sequence[int]) -> Span:
    """A span with the tokens of all text encoders."""
    return replace(span, further=tuple(i for i in tokens if not span.start <= i < span.stop))


def _align(
    base: Tokens, complete: Tokens, cut: tuple[int, int], shift: int, padding: bool
) -> tuple[tuple[int, int], ...]:
    """Pair tokens by their characters: those before the cut keep their place, those after it move by ``shift``.

    A token that the cut splits, or that the tokenizer merges with its new neighbour, has no counterpart. PAD tokens are
    paired if ``padding`` says so.
    """
    at = {
        (complete.offsets[i], complete.ids[i], _rank(complete.offsets, i)): i
        for i in range(complete.start, complete.stop)
    }  # byte-level tokens of one character share their offsets: the rank tells them apart
    pairs = [(0, 0)] if base.start else []  # the start token
    for i in range(base.start, base.stop):
        start, stop = base.offsets[i]
        moved = (start, stop) if stop <= cut[0] else (start + shift, stop + shift) if start >= cut[1] else None
        j = at.get((moved, base.ids[i], _rank(base.offsets, i))) if moved is not None else None
        if j is not None:
            pairs.append((i, j))
    lengths = (len(base.ids), len(complete.ids)) if padding else (base.stop + 1, complete.stop + 1)
    ends = zip(range(base.stop, lengths[0]), range(complete.stop, lengths[1]), strict=False)
    pairs.extend(ends)  # the end token, then the PAD tokens
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    return tuple(pairs)


def _rank(offsets: Sequence[tuple[int, int]], index: int) -> int:
    """How many tokens before this one cover the very same characters."""
    rank = 0
    while index - rank > 0 and offsets[index - rank - 1] == offsets[index]:
        rank += 1
    return rank
