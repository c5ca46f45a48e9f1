"""The texts of items: tokenised pairs, their embeddings, and other texts for the same portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spf_lite.data.batch import Item
from spf_lite.data.prompts import PromptPair, encode_pair, joined, split_phrases
from spf_lite.data.sets.captions import occurrences
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text
from spf_lite.models.tokenizer import PromptError, tokenize

#: Pairs of a base text and the phrase in it that the target replaces, if it replaces one.
ReferenceTexts = Sequence[tuple[str, str | None]]


def text_pair(
    backbone: Backbone,
    base_text: str,
    target_text: str,
    replaces: str | None = None,
    phrases: Sequence[str] | None = None,
    where: str = "",
) -> PromptPair:
    """:func:`encode_pair` for all text encoders of a model; errors name the file and the line."""
    try:
        pairs = [
            encode_pair(reader, base_text, target_text, replaces=replaces, phrases=phrases)
            for reader in backbone.readers
        ]
        return joined(pairs, backbone.architecture.blank_rows(backbone.pipe))
    except PromptError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from None


def check_texts(backbone: Backbone, texts: ReferenceTexts, target_text: str, places: Sequence[str] = ()) -> None:
    """Check reference texts before any training: long after it, they are sampled for.

    Args:
        backbone: whose tokenizer they must fit.
        texts: the reference texts.
        target_text: the target.
        places: file and line of each; empty: they come from no file.

    Raises:
        PromptError: if a text is empty, too long or holds the target, or a phrase does not stand in it.
    """
    for number, (text, replaces) in enumerate(texts):
        where = (places[number] if places else "") or f"reference text {number + 1}"
        text_pair(backbone, text, target_text, replaces, where=where)
        if occurrences(text, target_text):
            raise PromptError(f"{where}: {text!r} already holds the target {target_text!r}")


def encode_texts(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """N texts, encoded, (N, R, width), in main memory; equal texts are encoded once.

    Raises:
        PromptTooLongError: if a text has more tokens than the text encoder takes.
    """
    distinct = list(dict.fromkeys(texts))
    blank = [0] * backbone.architecture.blank_rows(backbone.pipe)
    read = [[i for reader in backbone.readers for i in tokenize(reader, text).ids] for text in distinct]
    ids = torch.tensor([row + blank for row in read])
    rows = torch.cat([encode_text(backbone.pipe, part).cpu() for part in ids.split(32)])
    number = {text: k for k, text in enumerate(distinct)}
    return rows[[number[text] for text in texts]]


def empty_text(backbone: Backbone) -> Tensor:
    """What guidance leads away from, (R, width): in most classes the empty text, encoded."""
    return backbone.architecture.empty(backbone.pipe, encode_texts(backbone, [""])[0])


def with_text_forms(backbone: Backbone, items: Sequence[Item], seed: int) -> list[Item]:
    """Every item twice: with its own texts, and with a base text that names some of its phrases only.

    The first phrase ("a person") is always kept, every other with probability one half. What is replaced may be among
    those that are not named: then the target is added at the end.

    Args:
        backbone: whose text encoder and CLIP are used.
        items: N of them.
        seed: of the choice.

    Returns:
        2 N items, each beside its other form.
    """
    generator = torch.Generator().manual_seed(seed)
    shorter = []
    for item in items:
        phrases = split_phrases(item.pair.base_text)
        kept = (torch.rand(len(phrases), generator=generator) < 0.5).tolist()
        shorter.append(", ".join(phrase for k, phrase in enumerate(phrases) if k == 0 or kept[k]))
    forms = [replace(item, is_shortened=True) for item in with_base_texts(backbone, items, shorter)]
    return [form for both in zip(items, forms, strict=True) for form in both]


def with_base_texts(backbone: Backbone, items: Sequence[Item], base_texts: Sequence[str]) -> list[Item]:
    """The same portraits with other base texts.

    Args:
        backbone: whose text encoder and CLIP are used.
        items: N of them.
        base_texts: N. If the phrase that the target replaces does not stand in one, the target is added at its end.

    Raises:
        PromptError: if a text does not fit the model.
    """
    pairs = [
        text_pair(backbone, text, item.pair.target_text, kept_phrase(item.pair.replaces, text))
        for item, text in zip(items, base_texts, strict=True)
    ]
    return [
        replace(item, pair=pair, base=base, complete=complete, distances=phrase_distances(backbone, pair))
        for item, pair, (base, complete) in zip(items, pairs, embeddings(backbone, pairs), strict=True)
    ]


def kept_phrase(phrase: str | None, text: str) -> str | None:
    """A phrase, if it stands between the commas of a text; else None."""
    return phrase if phrase in split_phrases(text) else None


def embeddings(backbone: Backbone, pairs: Sequence[PromptPair]) -> list[tuple[Tensor, Tensor]]:
    """Base and complete text of each pair, encoded, (R, width); equal texts are encoded once."""
    wanted = {tuple(ids.tolist()): ids for pair in pairs for ids in (pair.base_ids, pair.complete_ids)}
    encoded: dict[tuple[int, ...], Tensor] = {}
    for part in torch.stack(list(wanted.values())).split(32):
        rows = encode_text(backbone.pipe, part).cpu()
        encoded |= {tuple(ids.tolist()): row for ids, row in zip(part, rows, strict=True)}
    return [tuple(encoded[tuple(ids.tolist())] for ids in (pair.base_ids, pair.complete_ids)) for pair in pairs]  # type: ignore[misc]


def phrase_distances(backbone: Backbone, pair: PromptPair) -> Tensor:
    return backbone.clip.phrase_distances([phrase.text for phrase in pair.phrases], pair.target_text).cpu()
