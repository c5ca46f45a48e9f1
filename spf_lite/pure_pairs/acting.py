"""Where targets of earlier adapters act in the portraits that a run learns from.

A beard is two dozen places of 256. In a mean over all places its loss drowns, and each run of a chain would keep a
little less of it. So output alignment and reconstruction may weigh these places more (``earlier_weight``). As for
phrases (:mod:`spf_lite.pure_pairs.surprise`), a target acts where asking for it moves the prediction of the reference
model; what counts is above Otsu's threshold. Ours, not the paper's.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spf_lite.data.batch import Item, by_size
from spf_lite.data.earlier import EarlierTargets
from spf_lite.data.prompts import split_phrases
from spf_lite.data.sets.captions import occurrences
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs.surprise import TIMES, above_otsu, predicted, steadied

#: Seed of the noises, the same in every run.
SEED = 5


@torch.no_grad()
def with_acting(backbone: Backbone, items: Sequence[Item], earlier: EarlierTargets) -> list[Item]:
    """The same items; those whose base text asks for earlier targets say where these act in the portrait.

    Args:
        backbone: the model; its reference path is used.
        items: of the custom set, or reference portraits.
        earlier: the targets.
    """
    made = list(items)
    for target in earlier.targets:
        for rows in by_size(items).values():
            asking = [row for row in rows if occurrences(items[row].pair.base_text, target.text)]
            if not asking:
                continue
            for row, place in zip(asking, _places(backbone, [items[row] for row in asking], target), strict=True):
                known = made[row].acting
                made[row] = replace(made[row], acting=place if known is None else torch.maximum(known, place))
    return made


def _places(backbone: Backbone, items: Sequence[Item], target: LearnedTarget) -> Tensor:
    """Where a target acts in portraits of one size whose texts ask for it, (N, 1, h, w) of zeros and ones."""
    latents = torch.stack([item.latents for item in items])
    asked = [item.pair.base_text for item in items]
    without = [", ".join(phrase for phrase in split_phrases(text) if phrase != target.text) for text in asked]
    steps = backbone.pipe.scheduler.config.num_train_timesteps
    generator = torch.Generator().manual_seed(SEED)
    moved = torch.zeros_like(latents[:, :1])
    for share in TIMES:
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.full((len(latents),), int(share * steps))
        one, other = (predicted(backbone, latents, noise, times, texts) for texts in (asked, without))
        moved += (one - other).abs().mean(dim=1, keepdim=True) / len(TIMES)
    return above_otsu(steadied(moved)).to(latents.dtype)
