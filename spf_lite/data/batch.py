"""Pre-encoded examples and batches of them.

An *item* is a pre-encoded example: a portrait of the custom set, which shows the target, or a reference portrait, which
the reference model has sampled and which does not. Items stay in main memory; a batch is moved to the model's device.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from spf_lite.data.prompts import PromptPair


@dataclass(frozen=True)
class Item:
    """One pre-encoded portrait with its texts.

    Attributes:
        latents: z_0, scaled, (C, h, w); h and w differ between buckets.
        pair: base and complete text, tokenised and aligned.
        base: the base text, encoded, (R, width); its first L rows belong to the tokens.
        complete: the complete text, encoded, (R, width).
        distances: CLIP distances of the phrases to the target, (P,).
        portrait_features: CLIP embedding of the portrait; only the enhancement loss uses it, (width,).
        target_features: CLIP embedding of the target text, (width,).
        region: where the target may act, (1, h, w) in [0, 1], from a mask or an averaged map; None: not known.
        is_reference: sampled by the reference model, without the target.
        is_shortened: its base text names only some of the phrases that another item of the same portrait names.
        is_plain: its base text asks for none of the targets that were learned before.
        acting: where targets that were learned before, and that its base text asks for, act in the portrait, (1, h, w)
            of zeros and ones; None: nowhere.
    """

    latents: Tensor
    pair: PromptPair
    base: Tensor
    complete: Tensor
    distances: Tensor
    portrait_features: Tensor
    target_features: Tensor
    region: Tensor | None = None
    is_reference: bool = False
    is_shortened: bool = False
    is_plain: bool = False
    acting: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """B items of one size.

    Attributes:
        latents: z_0, scaled, (B, C, h, w).
        base: the base texts, encoded, (B, R, width).
        complete: the complete texts, encoded; the base texts again for reconstruction items, anchors among them.
        phrases: token averages per phrase, (B, P, L), see :func:`spf_lite.data.batch.phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        base_tokens: indices of aligned tokens in the base text, (B, K).
        complete_tokens: of their counterparts in the complete text, (B, K).
        aligned: (B, K), 1 for real pairs, 0 for padding.
        is_reference: (B,), True for portraits without the target: no denoising and no enhancement loss on them.
        is_reconstruction: (B,), True for items whose response path is fed the text of the reference path: M = 0 there.
        is_plain: (B,), True for items whose reference path is the model without earlier adapters, if there are any.
        target: token average of the target in the complete text, (B, L); zeros for reconstruction items.
        portrait_features: CLIP embeddings of the custom portraits, (B, width); only for the enhancement loss.
        target_features: CLIP embedding of the target text, (B, width).
        region: where the target may act, (B, 1, h, w); 1 everywhere in items where it is not known.
        acting: where earlier targets act, (B, 1, h, w); 0 everywhere in items where none does.
    """

    latents: Tensor
    base: Tensor
    complete: Tensor
    phrases: Tensor
    distances: Tensor
    base_tokens: Tensor
    complete_tokens: Tensor
    aligned: Tensor
    is_reference: Tensor
    is_reconstruction: Tensor
    is_plain: Tensor
    target: Tensor
    portrait_features: Tensor
    target_features: Tensor
    region: Tensor
    acting: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def phrase_matrix(pairs: Sequence[PromptPair], length: int) -> Tensor:
    """Matrix that averages token maps into phrase maps, (B, P, length).

    Row p has 1/n at the n tokens of phrase p. Portraits with fewer than P phrases are padded with rows of zeros.
    """
    most = max((len(pair.phrases) for pair in pairs), default=0)
    matrix = torch.zeros(len(pairs), most, length)
    for b, pair in enumerate(pairs):
        for p, phrase in enumerate(pair.phrases):
            matrix[b, p, list(phrase.tokens)] = 1 / len(phrase.tokens)
    return matrix


def by_size(items: Sequence[Item]) -> dict[tuple[int, int], list[int]]:
    """Latent height and width to the indices of the items that have them, in the order in which sizes first appear."""
    found: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(items):
        height, width = item.latents.shape[-2:]
        found.setdefault((height, width), []).append(index)
    return found


def without_text(item: Item, empty: Tensor) -> Item:
    """An item with the empty text in the place of its base text. It only serves with one text on both paths.

    Args:
        item: any item.
        empty: the empty text, encoded, (R, width).
    """
    pair = replace(item.pair, base_text="", phrases=(), alignment=())
    return replace(item, base=empty, pair=pair, distances=item.distances[:0], is_plain=True)


def collate(items: Sequence[Item], reconstruction: Sequence[bool]) -> Batch:
    """Put items into one batch, padding phrases and alignments to the longest of the batch.

    Args:
        items: B of them, all of one size.
        reconstruction: which of them are fed one text, the item's base text, on both paths.

    Raises:
        ValueError: if there are several sizes.
    """
    if len(sizes := by_size(items)) > 1:
        raise ValueError(f"a batch holds latents of one size, these have {', '.join(map(str, sizes))}")
    pairs = [item.pair for item in items]
    length = len(pairs[0].base_ids)
    phrases = phrase_matrix(pairs, length)
    distances = torch.zeros(phrases.shape[:2])
    width = max(len(pair.alignment) for pair in pairs)
    indices = torch.zeros(2, len(items), width, dtype=torch.long)
    aligned = torch.zeros(len(items), width)
    target = torch.zeros(len(items), length)
    for row, (item, again) in enumerate(zip(items, reconstruction, strict=True)):
        distances[row, : len(item.distances)] = item.distances
        matched = [(i, i) for i, _ in item.pair.alignment] if again else item.pair.alignment
        indices[:, row, : len(matched)] = torch.tensor(matched, dtype=torch.long).reshape(-1, 2).T
        aligned[row, : len(matched)] = 1
        if not again:
            target[row, list(item.pair.target.tokens)] = 1 / len(item.pair.target.tokens)
    everywhere = torch.ones(1, *items[0].latents.shape[-2:])
    return Batch(
        latents=torch.stack([item.latents for item in items]),
        base=torch.stack([item.base for item in items]),
        complete=torch.stack(
            [item.base if again else item.complete for item, again in zip(items, reconstruction, strict=True)]
        ),
        phrases=phrases,
        distances=distances,
        base_tokens=indices[0],
        complete_tokens=indices[1],
        aligned=aligned,
        is_reference=torch.tensor([item.is_reference for item in items]),
        is_reconstruction=torch.tensor(list(reconstruction)),
        is_plain=torch.tensor([item.is_plain for item in items]),
        target=target,
        portrait_features=torch.stack([item.portrait_features for item in items]),
        target_features=torch.stack([item.target_features for item in items]),
        region=torch.stack([everywhere if item.region is None else item.region for item in items]),
        acting=torch.stack([0 * everywhere if item.acting is None else item.acting for item in items]),
    )
