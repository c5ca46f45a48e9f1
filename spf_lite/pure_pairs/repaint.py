r"""Repainting: the reference model paints a new portrait around the target of one that exists.

At every sampling step the portrait itself, noised to the step, stands inside the map M, and the sample outside of it:

.. math:: z_t \leftarrow M \odot (a_t\, z_0 + s_t\, \epsilon) + (1 - M) \odot z_t

then the *reference model* takes a guided step for a base text. So what is outside the map follows the base text, and
fits what is inside. Starting from the same noise for the same base text, the reference model alone paints the portrait
that this one is the pair of.

Source: blended latent diffusion (Avrahami et al. 2023, arXiv 2206.02779), here with the noise that the sample starts
from. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spf_lite.data.texts import empty_text, encode_texts
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import Sampler
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.shared_work import shared_out

#: Sampling steps, and small portraits at a time.
STEPS, CHUNK = 25, 32


@torch.no_grad()
def repaint(
    backbone: Backbone, latents: Tensor, region: Tensor, texts: Sequence[str], generator: torch.Generator
) -> Tensor:
    """Portraits around the targets of others.

    Args:
        backbone: the model; its reference path is used.
        latents: scaled latents of the portraits that show the target, (N, C, h, w).
        region: M, 1 where the target is, (N, 1, h, w).
        texts: N base texts of the new portraits.
        generator: of their noise, on the CPU.

    Returns:
        scaled latents, (N, C, h, w).

    Raises:
        ValueError: if there are not as many texts and maps as portraits.
    """
    if not len(latents) == len(region) == len(texts):
        raise ValueError(f"{len(latents)} portraits, {len(region)} maps, {len(texts)} texts: each portrait needs both")
    noise = torch.randn(latents.shape, generator=generator)
    conditional, unconditional = encode_texts(backbone, texts), empty_text(backbone)

    def repainted(part: Tensor) -> Tensor:
        return _repaint(backbone, latents[part], region[part], conditional[part], unconditional, noise[part])

    together = at_a_time(latents.shape[-2:], CHUNK)
    chunks = shared_out(torch.arange(len(latents)).split(together), repainted)
    return torch.cat(chunks) if chunks else latents


def _repaint(
    backbone: Backbone, latents: Tensor, region: Tensor, conditional: Tensor, unconditional: Tensor, noise: Tensor
) -> Tensor:
    device = backbone.device
    latents, region, noise = latents.to(device), region.to(device), noise.to(device)
    text = torch.cat([unconditional.expand_as(conditional), conditional]).to(device)
    sampler = Sampler(backbone.pipe.scheduler, STEPS, device)
    sample = noise
    with backbone.reference() as network:
        for time in sampler.times:
            signal, spread = sampler.signal_and_noise(time)
            sample = region * (signal * latents + spread * noise) + (1 - region) * sample
            prediction = backbone.predict(network, torch.cat([sample, sample]), time, text)
            without, with_text = prediction.chunk(2)
            guided = without + backbone.spec.guidance_scale * (with_text - without)
            sample = sampler.step(guided, time, sample)
    return (region * latents + (1 - region) * sample).cpu()
