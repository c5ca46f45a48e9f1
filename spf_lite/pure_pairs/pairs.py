"""Pure pairs: portraits of new people that show the target, and nothing else of the custom set.

Three steps, all of the frozen reference model:

1. it reads what the captions do not say (:mod:`spf_lite.pure_pairs.reading`),
2. a map says where the target is (:mod:`spf_lite.pure_pairs.surprise`, or another of the configuration's maps),
3. it repaints everything else for other texts (:mod:`spf_lite.pure_pairs.repaint`).

Stage 2 learns from these portraits instead of the set's own: for the complete text the target inside the map, and
outside of it what the reference path predicts for the base text. So the word is all that tells both paths apart.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, by_size
from spf_lite.data.encoding import preview_features, reference_items
from spf_lite.data.texts import kept_phrase, retold
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs.reading import misreading, read_captions
from spf_lite.pure_pairs.repaint import repaint
from spf_lite.pure_pairs.surprise import surprise, surprise_map
from spf_lite.pure_pairs.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

#: Portraits painted for each one that is kept.
SPARE = 1.5


@dataclass(frozen=True)
class Sketch:
    """What a new portrait is painted from.

    Attributes:
        item: the portrait of the set whose target it gets, with the map for learning.
        region: what stays of that portrait, (1, h, w).
        text: its base text: the phrases of the item's own, and others at the places that the captions leave open.
        drawn: place to the phrase that was chosen for it.
        instead: the same text with the set's phrase at one of these places: what it must not show. One for each place
            where both differ.
    """

    item: Item
    region: Tensor
    text: str
    drawn: Mapping[int, str | None]
    instead: Mapping[int, str]


def repaintable(found: Mapping[int, str], reach: Mapping[int, Tensor], region: Tensor) -> list[int]:
    """The places whose phrases act mostly outside the map, so that repainting can change them.

    Args:
        found: place to the phrase that all portraits of the set share.
        reach: place to where its phrase acts, (N, 1, h, w); a place without a map counts as repaintable.
        region: M, (N, 1, h, w).
    """
    inside = {place: float((region * reach[place]).sum() / reach[place].sum().clamp(min=1e-9)) for place in reach}
    return [place for place in found if inside.get(place, 0.0) < 0.5]


def sketches(
    items: Sequence[Item],
    regions: Tensor,
    found: Mapping[int, str],
    changeable: Sequence[int],
    vocabulary: Vocabulary,
    count: int,
    generator: torch.Generator,
) -> list[Sketch]:
    """What ``count`` new portraits are painted from; the items are taken in turn.

    Args:
        items: the custom set, N portraits with their maps for learning.
        regions: what stays of each when it is repainted, (N, 1, h, w).
        found: place to the phrase that all portraits of the set share.
        changeable: the places of these that get the phrase of a random reference text; the others stay as they are.
        vocabulary: of the reference texts.
        count: how many.
        generator: chooses the texts.
    """
    made = []
    for number in range(count):
        item, region = items[number % len(items)], regions[number % len(items)]
        drawn = vocabulary.draw(changeable, generator)
        filled = {**found, **drawn}
        text = vocabulary.insert(item.pair.base_text, filled)
        instead = {
            place: vocabulary.insert(item.pair.base_text, {**filled, place: found[place]})
            for place in changeable
            if drawn[place] != found[place]
        }
        made.append(Sketch(item, region, text, drawn, instead))
    return made


def painted(
    backbone: Backbone, plan: Sequence[Sketch], count: int, generator: torch.Generator, enhance: bool = False
) -> list[Item]:
    """New portraits, as items of a custom set with their texts and maps for learning.

    Of all that are painted for a phrase, those are kept in which the reference model reads least of what the custom set
    shares: a mouth within a beard often stays as it was.

    Args:
        backbone: the model; what is trained on it is off.
        plan: what they are painted from, all of one size.
        count: how many are kept, in the order of the plan.
        generator: of their noise, on the processor.
        enhance: whether the enhancement loss will need their CLIP embeddings.
    """
    latents = torch.stack([sketch.item.latents for sketch in plan])
    regions = torch.stack([sketch.region for sketch in plan])
    texts = [sketch.text for sketch in plan]
    new = repaint(backbone, latents, regions, texts, generator)
    kept = list(range(len(plan)))
    if count < len(plan):
        kept = sorted(misread_ranks(backbone, plan, new, generator).argsort(stable=True)[:count].tolist())
    pairs = [(texts[row], kept_phrase(plan[row].item.pair.replaces, texts[row])) for row in kept]
    items = reference_items(backbone, pairs, new[kept], plan[0].item)
    seen = preview_features(backbone, new[kept]) if enhance else [item.portrait_features for item in items]
    logger.info("%d new portraits around the targets of the set, %d of them kept", len(plan), len(kept))
    return [
        replace(item, region=plan[row].item.region, is_reference=False, portrait_features=features)
        for item, row, features in zip(items, kept, seen, strict=True)
    ]


def misread_ranks(backbone: Backbone, plan: Sequence[Sketch], latents: Tensor, generator: torch.Generator) -> Tensor:
    """How badly portraits show what was drawn for them, each among all with the same phrase; the worst of its places.

    Ranks, because some phrases are harder to see than others: by their margins, a shout would keep all its portraits
    and a smile would lose them. The set's own phrase cannot be misread. Its portraits have ranks in the order of the
    plan, so that it gets no more than its share.

    Args:
        backbone: the model; what is trained on it is off.
        plan: what N portraits were painted from.
        latents: scaled latents of these portraits, (N, C, h, w).
        generator: of noises, on the processor.

    Returns:
        (N,), in (0, 1); low: shows every phrase better than others do.
    """
    ranks = torch.zeros(len(plan))
    for place in plan[0].drawn if plan else ():
        margins = torch.arange(len(plan)).float()
        rows = [row for row, sketch in enumerate(plan) if place in sketch.instead]
        if rows:
            asked = [plan[row].text for row in rows]
            instead = [plan[row].instead[place] for row in rows]
            margins[rows] = misreading(backbone, latents[rows], asked, instead, generator)
        groups: dict[str | None, list[int]] = {}
        for row, sketch in enumerate(plan):
            groups.setdefault(sketch.drawn[place], []).append(row)
        for group in groups.values():
            order = margins[group].argsort(stable=True).argsort()
            ranks[group] = ranks[group].maximum((order + 0.5) / len(group))
    return ranks


def _region(item: Item) -> Tensor:
    """M of an item, (1, h, w)."""
    if item.region is None:
        raise ValueError("pure pairs need a map for every portrait of the set")
    return item.region


def with_pure_pairs(backbone: Backbone, items: Sequence[Item], texts: Sequence[str], config: TrainConfig) -> list[Item]:
    """What stage 2 learns from: the custom set with filled captions, surprise maps or new portraits.

    Args:
        backbone: the model; what is trained on it is off.
        items: the custom set; with maps, unless they are made here.
        texts: base texts of other people.
        config: says which of the three it is, and how many portraits.
    """
    vocabulary, made = Vocabulary(texts), []
    groups = sorted(by_size(items).values(), key=len, reverse=True)
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + 700_000)
    # Portraits of the most frequent size are read; what they share, all share.
    found = (
        read_captions(backbone, [items[i] for i in groups[0]], vocabulary, generator) if config.fill_captions else {}
    )
    for group in groups:
        part = [items[i] for i in group]
        reach: dict[int, Tensor] = {}
        if config.map_source == "surprise":
            measured = surprise(backbone, part, found, vocabulary, generator)
            regions, reach = surprise_map(measured, config.reach_limit), measured.reach
            learned = surprise_map(measured, min(config.reach_limit, config.learning_limit))
            part = [replace(item, region=region) for item, region in zip(part, learned, strict=True)]
        elif config.pure_pairs:
            regions = torch.stack([_region(item) for item in part])
        if not config.pure_pairs:
            made += retold(backbone, part, [vocabulary.insert(item.pair.base_text, found) for item in part])
            continue
        count = max(1, round(config.pure_pairs * len(part) / len(items)))
        changeable = repaintable(found, reach, regions)
        plan = sketches(part, regions, found, changeable, vocabulary, ceil(SPARE * count), generator)
        made += painted(backbone, plan, count, generator, config.weight_enhancement > 0)
    return made
