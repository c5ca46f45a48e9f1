"""Pure pairs: portraits of new people that show the target, and nothing else of the custom set.

Four steps, all of the frozen reference model:

1. it reads what the captions do not say (:mod:`spf_lite.pure_pairs.reading`),
2. a map says where the target is (:mod:`spf_lite.pure_pairs.surprise`, or another of the configuration's maps),
3. it rewrites what other phrases share with the target (:mod:`spf_lite.pure_pairs.rewrite`),
4. it repaints everything else for other texts (:mod:`spf_lite.pure_pairs.repaint`).

Stage 2 learns from these portraits instead of the set's own: for the complete text the target inside the map, and
outside of it what the reference path predicts for the base text. So the word is all that tells both paths apart.

A style changes every place, and leaves nothing to repaint. It is learned from the set's own portraits, whose completed
captions name what else they share.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, by_size
from spf_lite.data.earlier import EarlierTargets
from spf_lite.data.encoding import preview_features, reference_items
from spf_lite.data.texts import kept_phrase, with_base_texts
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs.plans import RepaintPlan, partly_inside, repaint_plans, repaintable, rewritten, with_earlier
from spf_lite.pure_pairs.reading import classification_margin, read_captions
from spf_lite.pure_pairs.repaint import repaint
from spf_lite.pure_pairs.surprise import (
    Surprise,
    earlier_places,
    phrase_places,
    relative_surprise,
    surprise,
    surprise_map,
)
from spf_lite.pure_pairs.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

#: Portraits painted for each one that is kept.
SPARE = 1.5


def painted(
    backbone: Backbone, plan: Sequence[RepaintPlan], count: int, generator: torch.Generator, enhance: bool = False
) -> list[Item]:
    """New portraits, as items of a custom set with their texts and maps for learning.

    Of all that are painted for a phrase, those are kept in which the reference model reads least of what the custom set
    shares: a mouth within a beard often stays as it was.

    Args:
        backbone: the model; its reference path is used.
        plan: what they are painted from, all of one size.
        count: how many are kept, in the order of the plan.
        generator: of their noise, on the CPU.
        enhance: whether the enhancement loss will need their CLIP embeddings.
    """
    latents = torch.stack([one.item.latents for one in plan])
    regions = torch.stack([one.region for one in plan])
    texts = [one.text for one in plan]
    new = repaint(backbone, latents, regions, texts, generator)
    kept = list(range(len(plan)))
    if count < len(plan):
        kept = sorted(margin_ranks(backbone, plan, new, generator).argsort(stable=True)[:count].tolist())
    pairs = [(texts[row], kept_phrase(plan[row].item.pair.replaces, texts[row])) for row in kept]
    items = reference_items(backbone, pairs, new[kept], plan[0].item)
    seen = preview_features(backbone, new[kept]) if enhance else [item.portrait_features for item in items]
    logger.info("%d new portraits around the targets of the set, %d of them kept", len(plan), len(kept))
    return [
        replace(item, region=plan[row].item.region, is_reference=False, portrait_features=features)
        for item, row, features in zip(items, kept, seen, strict=True)
    ]


def margin_ranks(
    backbone: Backbone, plan: Sequence[RepaintPlan], latents: Tensor, generator: torch.Generator
) -> Tensor:
    """How badly portraits show what was drawn for them, each among all with the same phrase; the worst of its places.

    Ranks, because margins differ between phrases. If margins were compared, a phrase with small ones, such as a smile,
    would lose all its portraits. The set's own phrase cannot be misread. Its portraits have ranks in the order of the
    plan, so that it gets no more than its share.

    Args:
        backbone: the model; its reference path is used.
        plan: what N portraits were painted from.
        latents: scaled latents of these portraits, (N, C, h, w).
        generator: of noises, on the CPU.

    Returns:
        (N,), in (0, 1); low: shows every phrase better than others do.
    """
    ranks = torch.zeros(len(plan))
    for place in plan[0].drawn if plan else ():
        margins = torch.arange(len(plan)).float()
        rows = [row for row, one in enumerate(plan) if place in one.instead]
        if rows:
            asked = [plan[row].text for row in rows]
            instead = [plan[row].instead[place] for row in rows]
            margins[rows] = classification_margin(backbone, latents[rows], asked, instead, generator)
        groups: dict[str | None, list[int]] = {}
        for row, one in enumerate(plan):
            groups.setdefault(one.drawn[place], []).append(row)
        for group in groups.values():
            order = margins[group].argsort(stable=True).argsort()
            ranks[group] = ranks[group].maximum((order + 0.5) / len(group))
    return ranks


def _region(item: Item) -> Tensor:
    """M of an item, (1, h, w)."""
    if item.region is None:
        raise ValueError("pure pairs need a map for every portrait of the set")
    return item.region


def with_pure_pairs(
    backbone: Backbone,
    items: Sequence[Item],
    texts: Sequence[str],
    config: TrainConfig,
    references: Sequence[Item] = (),
    earlier: EarlierTargets | None = None,
) -> list[Item]:
    """What stage 2 learns from: the custom set with filled captions, surprise maps or new portraits.

    Args:
        backbone: the model; its reference path is used.
        items: the custom set; with maps, unless they are made here.
        texts: base texts of other people.
        config: says which of the three it is, and how many portraits.
        references: reference portraits, which tell a style from a thing; none: nothing is a style.
        earlier: targets of earlier adapters, which a share of the new portraits shows as well.
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
        shared: dict[int, Tensor] = {}
        acting: dict[LearnedTarget, Tensor] = {}
        style = False
        if config.map_source == "surprise":
            measured = surprise(backbone, part, found, vocabulary, generator, earlier if config.pure_pairs else None)
            acting = earlier_places(measured)
            style = _is_style(backbone, measured, references, vocabulary, config)
            regions, reach = surprise_map(measured, config.reach_limit), measured.reach
            learned = surprise_map(measured, min(config.reach_limit, config.learning_limit))
            learned = torch.ones_like(learned) if style else learned
            part = [replace(item, region=region) for item, region in zip(part, learned, strict=True)]
        elif config.pure_pairs:
            regions = torch.stack([_region(item) for item in part])
        if style or not config.pure_pairs:
            made += with_base_texts(backbone, part, [vocabulary.insert(item.pair.base_text, found) for item in part])
            continue
        changeable = repaintable(found, reach, regions)
        if config.rewrite_limit:
            acts = phrase_places(measured, config.rewrite_limit)
            shared = {place: acts[place] for place in partly_inside(changeable, reach, regions)}
            # What is rewritten need not be left to repainting, which would take the target away there.
            others = {place: where for place, where in reach.items() if place not in shared}
            regions = surprise_map(replace(measured, reach=others), config.reach_limit)
        count = max(1, round(config.pure_pairs * len(part) / len(items)))
        plan = repaint_plans(part, regions, found, changeable, vocabulary, ceil(SPARE * count), generator)
        plan = rewritten(backbone, plan, found, shared, vocabulary, generator)
        plan = with_earlier(backbone, plan, earlier, acting) if earlier else plan
        made += painted(backbone, plan, count, generator, config.weight_enhancement > 0)
    return made


def _is_style(
    backbone: Backbone, measured: Surprise, references: Sequence[Item], vocabulary: Vocabulary, config: TrainConfig
) -> bool:
    """Whether the target is everywhere in the set's portraits (:func:`relative_surprise`)."""
    count, _, height, width = measured.difference.shape
    whole = [item for item in references if not item.is_shortened and item.latents.shape[-2:] == (height, width)]
    if not (config.style_limit and whole):
        return False
    # A generator of its own: what is drawn for the set is the same with and without this question.
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + 700_001)
    times = relative_surprise(measured, surprise(backbone, whole[:count], {}, vocabulary, generator))
    logger.info("where no target would be, the set is %.1f times as surprising as reference portraits", times)
    return times > config.style_limit
