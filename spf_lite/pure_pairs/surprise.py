r"""The surprise map: where the reference model cannot predict a portrait from a caption without the target.

The reference model has not learned the target. It is shown a noised portrait of the custom set with the completed
caption, and predicts the clean portrait. Where the target is, it is wrong:

.. math:: D_\mathrm{surprise} = \frac1K \sum_k \frac1C \sum_c | \hat z_0(z_{t_k}, t_k, E(b)) - z_0 |_c

with the base text b, completed by :mod:`spf_lite.pure_pairs.reading`. Where a phrase p acts is measured as well: it is
swapped for another one, and the prediction moves.

.. math::
    R_p = \frac1K \sum_k \frac1C \sum_c
    | \hat z_0(z_{t_k}, t_k, E(b)) - \hat z_0(z_{t_k}, t_k, E(b_{p \to p'})) |_c

The map is the paper's formula, difference less phrase maps, with the real portrait in the place of the response path,
and the measured reach of a phrase in the place of its attention:

.. math:: M = [\, \mathrm{smooth}(D_\mathrm{surprise}) > D_\mathrm{Otsu} \,] \cdot
    [\, \max_p R_p \le c\, D_\mathrm{surprise} \,]

It needs no training, so there is no stage 1 that would pollute it.

A threshold splits every portrait in two, also one of a style, where the target is everywhere. A style is known by the
smaller half of its surprise, which is still several times the surprise at portraits of the model's own
(:func:`relative_surprise`). Its map is 1 everywhere.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spf_lite.data.batch import Item
from spf_lite.data.earlier import EarlierTargets
from spf_lite.data.texts import encode_texts
from spf_lite.method.control_map import smoothed
from spf_lite.method.paths import reference_predictions
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents
from spf_lite.pure_pairs.vocabulary import Vocabulary

#: Shares of the timesteps at which surprise and reach are measured: enough noise to hide a portrait's details, too
#: little to hide its layout.
TIMES = (0.2, 0.35, 0.5, 0.65)


@dataclass(frozen=True)
class Surprise:
    """What the reference model says about each place of N portraits, in the units of latents.

    Attributes:
        difference: D_surprise, how far its prediction is from the portrait, (N, 1, h, w).
        reach: R_p, how far swapping the phrase of a place moves its prediction: place to (N, 1, h, w).
        earlier: how far asking for a target of an earlier adapter moves it: target to (N, 1, h, w).
    """

    difference: Tensor
    reach: dict[int, Tensor]
    earlier: dict[LearnedTarget, Tensor] = field(default_factory=dict)


@torch.no_grad()
def surprise(
    backbone: Backbone,
    items: Sequence[Item],
    found: Mapping[int, str],
    vocabulary: Vocabulary,
    generator: torch.Generator,
    earlier: EarlierTargets | None = None,
) -> Surprise:
    """Measure the surprise of the reference model, and the reach of the phrases that it has read.

    Args:
        backbone: the model; its reference path is used.
        items: N portraits of one size.
        found: place to phrase, what :func:`spf_lite.pure_pairs.reading.read_captions` found.
        vocabulary: of the reference texts; phrases are swapped for others of their place.
        generator: of noises and swaps, on the CPU.
        earlier: targets of earlier adapters, whose reach is measured as well.
    """
    latents = torch.stack([item.latents for item in items])
    base = [item.pair.base_text for item in items]
    difference = torch.zeros_like(latents[:, :1])
    reach = {place: torch.zeros_like(difference) for place in found}
    described = [vocabulary.insert(text, found) for text in base]
    asking = {one: earlier.asked(backbone, described, one) for one in earlier.targets} if earlier else {}
    further = {target: torch.zeros_like(difference) for target in asking}
    steps = backbone.pipe.scheduler.config.num_train_timesteps
    for share in TIMES:
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.full((len(latents),), int(share * steps))
        clean = predicted(backbone, latents, noise, times, described)
        difference += (clean - latents).abs().mean(dim=1, keepdim=True) / len(TIMES)
        for place, phrase in found.items():
            others: list[str | None] = [other for other in vocabulary.phrases[place] if other != phrase]
            others = others or [None]
            picks = torch.randint(len(others), (len(base),), generator=generator).tolist()
            swapped = [
                vocabulary.insert(text, {**found, place: others[pick]}) for text, pick in zip(base, picks, strict=True)
            ]
            moved = predicted(backbone, latents, noise, times, swapped)
            reach[place] += (moved - clean).abs().mean(dim=1, keepdim=True) / len(TIMES)
        for target, texts in asking.items():
            moved = predicted(backbone, latents, noise, times, texts)
            further[target] += (moved - clean).abs().mean(dim=1, keepdim=True) / len(TIMES)
    return Surprise(difference, reach, further)


def predicted(backbone: Backbone, latents: Tensor, noise: Tensor, times: Tensor, texts: Sequence[str]) -> Tensor:
    """One-step predictions of the reference model for noised portraits, (N, C, h, w)."""
    scheduler = backbone.pipe.scheduler
    noisy = add_noise(scheduler, latents, noise, times)
    prediction = reference_predictions(backbone, noisy, times, encode_texts(backbone, texts))
    return predicted_latents(scheduler, prediction, noisy, times)


def surprise_map(measured: Surprise, reach_limit: float, smoothing: int = 3) -> Tensor:
    r"""M: where the surprise is high and no phrase reaches, (N, 1, h, w) of zeros and ones.

    The threshold :math:`D_\mathrm{Otsu}` is Otsu's (1979), for each portrait the one that separates its places best
    into two classes. Half of each R_p and of the D that it is compared with is the mean over the portraits, because a
    single portrait's are grainy.

    Args:
        measured: D and R_p of N portraits.
        reach_limit: c. A place where a phrase moves the prediction by more than c times the surprise belongs to the
            phrase: a mouth within a beard.
        smoothing: side of the averaging box in latent pixels, odd; 1: none.
    """
    free = _surprising(measured.difference, smoothing)
    for reach in measured.reach.values():
        free &= ~_reaches(reach, measured.difference, reach_limit)
    return free.to(measured.difference.dtype)


def earlier_places(measured: Surprise) -> dict[LearnedTarget, Tensor]:
    """Where targets of earlier adapters act: target to (N, 1, h, w) of zeros and ones.

    The prediction moves more there than Otsu's threshold of the portrait, and by more than the surprise. Either alone
    takes too much: where nothing is surprising, every phrase reaches; where two targets lie close together, the new
    one's place is moved as well. For phrases :func:`surprise_map` asks for less than the surprise. That much here takes
    a part of the new target away: sunglasses take the upper half of a moustache.

    Args:
        measured: of N portraits.
    """
    places = {}
    for target, reach in measured.earlier.items():
        high = above_otsu(steadied(reach))
        places[target] = (high & _reaches(reach, measured.difference, 1.0)).to(reach.dtype)
    return places


def relative_surprise(measured: Surprise, references: Surprise, smoothing: int = 3) -> float:
    """How many times the model is as far from the set's portraits, where no target would be, as from its own.

    Near 1: outside the map the set's portraits are ordinary ones. Several times: the target is there as well.

    Args:
        measured: of the custom set.
        references: of portraits that the model has painted, with their own texts.
        smoothing: side of the averaging box in latent pixels, odd; 1: none.

    Returns:
        the mean over the set's portraits of their mean difference below Otsu's threshold, by the mean difference of the
        model's own portraits.
    """
    smooth = smoothed(measured.difference, smoothing)
    ordinary = torch.stack([one[one <= otsu(one)].mean() for one in smooth]).mean()
    return float(ordinary / references.difference.mean().clamp(min=1e-9))


def phrase_places(measured: Surprise, rewrite_limit: float, smoothing: int = 3) -> dict[int, Tensor]:
    """Where the target and a phrase lie together: place to (N, 1, h, w) of zeros and ones.

    Args:
        measured: D and R_p of N portraits.
        rewrite_limit: the surprise is high there, and the phrase moves the prediction by more than this many times it.
        smoothing: side of the averaging box in latent pixels, odd; 1: none.
    """
    surprising = _surprising(measured.difference, smoothing)
    return {
        place: (surprising & _reaches(reach, measured.difference, rewrite_limit)).to(reach.dtype)
        for place, reach in measured.reach.items()
    }


def _surprising(difference: Tensor, smoothing: int) -> Tensor:
    return above_otsu(smoothed(difference, smoothing))


def above_otsu(maps: Tensor) -> Tensor:
    """Where each map, (N, 1, h, w), is above its own threshold (:func:`otsu`)."""
    return maps > torch.stack([otsu(one) for one in maps])[:, None, None, None]


def _reaches(reach: Tensor, difference: Tensor, limit: float) -> Tensor:
    return steadied(reach) > limit * steadied(difference).clamp(min=1e-6)


def steadied(maps: Tensor) -> Tensor:
    """Half of each map, (N, 1, h, w), and half of their mean: a single portrait's is grainy."""
    return (maps + maps.mean(dim=0, keepdim=True)) / 2


def otsu(values: Tensor) -> Tensor:
    r"""Otsu's threshold (1979) of a map of any shape: the one of the largest variance between both classes, a scalar.

    .. math:: D_\mathrm{Otsu} = \arg\max\ w_0 w_1 (\mu_0 - \mu_1)^2

    with the shares w and means :math:`\mu` of the values below and above. It is 0 for less than two values.
    """
    ordered = values.flatten().sort().values.cpu().double()  # Apple's cards have no float64
    if len(ordered) < 2:
        return values.new_zeros(())
    below = torch.arange(1, len(ordered), dtype=torch.float64)
    sums = ordered.cumsum(0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    between = below * (len(ordered) - below) * (low - high).square()
    cut = int(between.argmax())
    return ((ordered[cut] + ordered[cut + 1]) / 2).to(values)
