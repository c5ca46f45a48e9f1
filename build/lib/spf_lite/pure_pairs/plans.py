"""Repaint plans: what each pure pair is generated from, and the rewriting of the portraits beneath it.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spf_lite.data.batch import Item
from spf_lite.data.earlier import EarlierTargets, asking_for
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs.rewrite import rewrite
from spf_lite.pure_pairs.vocabulary import Vocabulary

#: A phrase is rewritten if at least this share of its reach lies inside the map. With less, repainting changes it.
PARTLY = 0.15


@dataclass(frozen=True)
class RepaintPlan:
    """What a new portrait is painted from.

    Attributes:
        item: the portrait of the set whose target it gets, with the map for learning; rewritten, if it was.
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
    return [place for place in found if place not in reach or share_inside(reach[place], region) < 0.5]


def partly_inside(changeable: Sequence[int], reach: Mapping[int, Tensor], region: Tensor) -> list[int]:
    """The changeable places whose phrases act partly inside the map, so that repainting alone cannot change them.

    Args:
        changeable: the places that :func:`repaintable` returned.
        reach: place to where its phrase acts, (N, 1, h, w).
        region: M, (N, 1, h, w).
    """
    return [place for place in changeable if place in reach and share_inside(reach[place], region) >= PARTLY]


def share_inside(reach: Tensor, region: Tensor) -> float:
    """The share of a phrase's reach, (N, 1, h, w), that lies inside the map of the same shape."""
    return float((region * reach).sum() / reach.sum().clamp(min=1e-9))


def repaint_plans(
    items: Sequence[Item],
    regions: Tensor,
    found: Mapping[int, str],
    changeable: Sequence[int],
    vocabulary: Vocabulary,
    count: int,
    generator: torch.Generator,
) -> list[RepaintPlan]:
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
        made.append(RepaintPlan(item, region, text, drawn, instead))
    return made


def rewritten(
    backbone: Backbone,
    plan: Sequence[RepaintPlan],
    found: Mapping[int, str],
    places: Mapping[int, Tensor],
    vocabulary: Vocabulary,
    generator: torch.Generator,
) -> list[RepaintPlan]:
    """The same plans, around portraits that show what was drawn also where the target hides it.

    Args:
        backbone: the model; its reference path is used.
        plan: of each new portrait, in turn of N items.
        found: place to the phrase that all portraits of the set share.
        places: of the phrases that are rewritten, place to where each portrait may change for it, (N, 1, h, w).
        vocabulary: of the reference texts.
        generator: of noises, on the CPU.
    """
    if not places:
        return list(plan)
    anywhere = torch.stack(list(places.values())).amax(dim=0)
    shown = tuple(found[place] for place in places)
    # A portrait is rewritten once for the same phrases: its row in the set, and the phrases.
    edits = [(number % len(anywhere), tuple(one.drawn[place] for place in places)) for number, one in enumerate(plan)]
    items = {edit: one.item for edit, one in zip(edits, plan, strict=True) if edit[1] != shown}
    if not items:
        return list(plan)
    new = rewrite(
        backbone,
        torch.stack([item.latents for item in items.values()]),
        anywhere[[row for row, _ in items]],
        [vocabulary.insert(item.pair.base_text, found) for item in items.values()],
        [
            vocabulary.insert(item.pair.base_text, {**found, **dict(zip(places, phrases, strict=True))})
            for (_, phrases), item in items.items()
        ],
        generator,
    )
    changed = {edit: replace(items[edit], latents=latents) for edit, latents in zip(items, new, strict=True)}
    return [replace(one, item=changed.get(edit, one.item)) for edit, one in zip(edits, plan, strict=True)]


def with_earlier(
    backbone: Backbone, plan: Sequence[RepaintPlan], earlier: EarlierTargets, places: Mapping[LearnedTarget, Tensor]
) -> list[RepaintPlan]:
    """The same plans; a share of the texts asks for targets of earlier adapters as well.

    Args:
        backbone: whose text encoder the texts must fit.
        plan: of each new portrait, in turn of N items.
        earlier: the targets.
        places: where each acts, (N, 1, h, w) of zeros and ones: it is painted there, and nothing of the set's portrait
            stays. A target without a map takes nothing from that.
    """
    made = []
    for number, (one, wanted) in enumerate(zip(plan, earlier.drawn(len(plan), draw=1), strict=True)):
        for target in wanted:
            text = asking_for(one.text, None, target)[0]
            if not earlier.fits(backbone, text):
                continue
            acts = places.get(target)
            free = 1 if acts is None else 1 - acts[number % len(acts)]
            learned = None if one.item.region is None else one.item.region * free
            one = replace(
                one,
                item=replace(one.item, region=learned),
                region=one.region * free,
                text=text,
                instead={place: asking_for(instead, None, target)[0] for place, instead in one.instead.items()},
            )
        made.append(one)
    return made
