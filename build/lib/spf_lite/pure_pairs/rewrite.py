r"""Rewriting: the reference model changes one phrase of a portrait, and leaves the rest, target included, as it is.

A mouth within a beard lies inside the map, so repainting cannot change it. Delta denoising can: of two predictions by
the *reference model*, one of the edited portrait x for the text that is asked, one of the portrait :math:`z_0` as it
was for its own text, the errors that both make at the target cancel, and what the phrase changes is left:

.. math::
    x \leftarrow x + P \odot \big[ (\hat z_0(x_t, t, E(b_{p \to p'})) - x) - (\hat z_0(z_t, t, E(b)) - z_0) \big]

with the places P where the phrase acts, the same noise and timestep t for both, and the first prediction guided away
from the portrait's own text.

Source: delta denoising score (Hertz et al. 2023, arXiv 2304.07090), here in the units of latents, at the places of one
phrase. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spf_lite.data.texts import encode_texts
from spf_lite.method.paths import reference_predictions
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents

#: Steps, and the guidance scale towards the text that is asked, away from the portrait's own.
STEPS, GUIDANCE = 16, 2.0
#: Timesteps, as shares of all: with less noise nothing is changed any more, with more noise the layout would be.
TIMES = (0.2, 0.8)
#: Successive multiples of it, modulo 1, cover an interval evenly, whatever their number (the golden ratio's fraction).
EVENLY = 0.618034


@torch.no_grad()
def rewrite(
    backbone: Backbone,
    latents: Tensor,
    places: Tensor,
    own: Sequence[str],
    asked: Sequence[str],
    generator: torch.Generator,
) -> Tensor:
    """Portraits with another phrase.

    Args:
        backbone: the model; its reference path is used.
        latents: scaled latents of N portraits, (N, C, h, w).
        places: P, 1 where they may change, (N, 1, h, w).
        own: N texts that describe them.
        asked: the same texts with another phrase.
        generator: of the noises, on the CPU.

    Returns:
        scaled latents, (N, C, h, w); outside ``places`` those of the portraits.

    Raises:
        ValueError: if there are not as many texts and maps as portraits.
    """
    if not len(latents) == len(places) == len(own) == len(asked):
        raise ValueError(
            f"{len(latents)} portraits, {len(places)} maps, {len(own)} and {len(asked)} texts: each portrait needs all"
        )
    if not len(latents):
        return latents
    described, wanted = encode_texts(backbone, own), encode_texts(backbone, asked)
    scheduler = backbone.pipe.scheduler
    first, last = (share * scheduler.config.num_train_timesteps for share in TIMES)
    edited = latents
    for step in range(STEPS):
        times = torch.full((len(latents),), int(first + (last - first) * (step * EVENLY % 1)))
        noise = torch.randn(latents.shape, generator=generator)
        before, now = (add_noise(scheduler, portraits, noise, times) for portraits in (latents, edited))
        kept, away, towards = (
            reference_predictions(backbone, noisy, times, text)
            for noisy, text in ((before, described), (now, described), (now, wanted))
        )
        guided = away + GUIDANCE * (towards - away)
        change = predicted_latents(scheduler, guided, now, times) - edited
        drift = predicted_latents(scheduler, kept, before, times) - latents
        edited = edited + places * (change - drift)
    return edited
