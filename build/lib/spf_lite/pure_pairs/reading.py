r"""What the captions of a custom set do not say, read from its portraits by the reference model.

All portraits of a set may share an attribute that no caption names, such as a yellow background. A diffusion model is
also a classifier (Li et al. 2023, "Your diffusion model is secretly a zero-shot classifier", arXiv 2303.16203): of two
texts, the one that describes a portrait better gives the smaller denoising error. So the *reference model* chooses, for
every place of the text that the captions leave open, the phrase that explains the whole set best:

.. math:: \hat c = \arg\min_c\ \frac1N \sum_i \| v_{\theta_0}(z_{t_i}, t_i, E(b_i + c)) - v_i \|^2

with the base texts :math:`b_i`, the candidate phrases c of all open places, and the same noises and timesteps for every
candidate. A phrase is only added if it lowers the error.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spf_lite.data.batch import Item
from spf_lite.data.texts import encode_texts
from spf_lite.method.paths import reference_predictions
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, training_target
from spf_lite.pure_pairs.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

#: Timesteps that the errors are averaged over, as shares of all: with less noise every text explains a portrait, with
#: more noise none does.
READABLE = (0.15, 0.85)
#: Noises per candidate: when all candidates are tried, and when the best ones are compared.
DRAWS = (24, 96)
#: How many candidates of each place are compared.
FINALISTS = 4
#: How often every place is gone through: what fits best in one depends on what stands in the others.
ROUNDS = 2
#: Timesteps at which a new portrait is read, as shares of all.
CHECKED = (0.2, 0.4, 0.6)


class _Errors:
    """Denoising errors of the reference model on noised portraits, for texts that differ in some phrases.

    Args:
        backbone: the model; its reference path is used.
        items: the portraits, taken in turn.
        vocabulary: says where a phrase is inserted.
        count: noises.
        offset: of the first portrait.
        generator: of noises and timesteps.
    """

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[Item],
        vocabulary: Vocabulary,
        count: int,
        offset: int,
        generator: torch.Generator,
    ) -> None:
        self.backbone, self.vocabulary = backbone, vocabulary
        self.items = [items[(offset + k) % len(items)] for k in range(count)]
        scheduler = backbone.pipe.scheduler
        first, last = (share * scheduler.config.num_train_timesteps for share in READABLE)
        times = torch.linspace(first, last, count).long()[torch.randperm(count, generator=generator)]
        latents = torch.stack([item.latents for item in self.items])
        noise = torch.randn(latents.shape, generator=generator)
        self.timesteps = times
        self.noisy = add_noise(scheduler, latents, noise, times)
        self.target = training_target(scheduler, latents, noise, times)

    def __call__(self, additions: Mapping[int, str | None]) -> Tensor:
        """The error on each noised portrait when its base text has these additions, (count,)."""
        texts = [self.vocabulary.insert(item.pair.base_text, additions) for item in self.items]
        prediction = reference_predictions(
            self.backbone, self.noisy, self.timesteps, encode_texts(self.backbone, texts)
        )
        return (prediction - self.target).square().flatten(1).mean(dim=1)


def read_captions(
    backbone: Backbone,
    items: Sequence[Item],
    vocabulary: Vocabulary,
    generator: torch.Generator,
    draws: tuple[int, int] | None = None,
) -> dict[int, str]:
    """The phrases that all captions of a set leave out, as far as the reference model sees them in the portraits.

    Args:
        backbone: the model; its reference path is used.
        items: the portraits of the set, of one size.
        vocabulary: of the reference texts; its places that no caption fills are open.
        generator: of noises and timesteps, on the CPU.
        draws: noises per candidate, when all are tried and when the best are compared; default: :data:`DRAWS`.

    Returns:
        place to phrase, in the order of the places. Empty if the captions leave nothing open.
    """
    filled = {place for item in items for place in vocabulary.filled_by(item.pair.base_text)}
    open_places = [place for place in sorted(vocabulary.phrases) if place not in filled]
    if not open_places:
        return {}
    few, many = draws or DRAWS
    errors = _Errors(backbone, items, vocabulary, few, 0, generator)
    scores = {
        place: {phrase: float(errors({place: phrase}).mean()) for phrase in vocabulary.phrases[place]}
        for place in open_places
    }
    finalists = {place: sorted(found, key=lambda phrase: found[phrase])[:FINALISTS] for place, found in scores.items()}
    # The place that explains most comes first.
    order = sorted(open_places, key=lambda place: min(scores[place].values()))
    errors = _Errors(backbone, items, vocabulary, many, few, generator)
    chosen: dict[int, str] = {}
    for _ in range(ROUNDS):
        for place in order:
            others = {other: phrase for other, phrase in chosen.items() if other != place}
            without = float(errors(others).mean())
            gains = {phrase: without - float(errors({**others, place: phrase}).mean()) for phrase in finalists[place]}
            best = max(gains, key=lambda phrase: gains[phrase])
            chosen = {**others, place: best} if gains[best] > 0 else others
    found = {place: chosen[place] for place in sorted(chosen)}
    logger.info("the reference model reads in the set: %s", ", ".join(found.values()) or "nothing new")
    return found


def classification_margin(
    backbone: Backbone, latents: Tensor, asked: Sequence[str], instead: Sequence[str], generator: torch.Generator
) -> Tensor:
    """How much better another text explains a portrait than the one it was painted for, (N,).

    Args:
        backbone: the model; its reference path is used.
        latents: scaled latents of N portraits, (N, C, h, w).
        asked: N base texts that they were painted for.
        instead: N other texts.
        generator: of the noises, on the CPU.

    Returns:
        denoising error for ``asked`` less that for ``instead``, mean over some timesteps; positive: misread.
    """
    margins = torch.zeros(len(latents))
    scheduler = backbone.pipe.scheduler
    for share in CHECKED:
        times = torch.full((len(latents),), int(share * scheduler.config.num_train_timesteps))
        noise = torch.randn(latents.shape, generator=generator)
        noisy = add_noise(scheduler, latents, noise, times)
        target = training_target(scheduler, latents, noise, times)
        for sign, texts in ((1, asked), (-1, instead)):
            prediction = reference_predictions(backbone, noisy, times, encode_texts(backbone, texts))
            margins += sign * (prediction - target).square().flatten(1).mean(dim=1)
    return margins / len(CHECKED)
