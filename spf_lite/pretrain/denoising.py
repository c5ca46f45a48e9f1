"""What the networks that denoise have in common, whatever their architecture: noised portraits, captions, the loss.

Batches are drawn from the base split, whose portraits show no target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from spf_lite.pretrain.autoencoder import encoded_latents
from spf_lite.pretrain.dataset import SPLITS, portraits_of
from spf_lite.pretrain.text import random_caption
from spf_lite.tiny_world.portraits import Portrait

#: Share of empty captions, for classifier-free guidance (Ho & Salimans 2022).
UNCONDITIONAL = 0.1


@dataclass(frozen=True)
class NoisedBatch:
    """What one step learns from.

    Attributes:
        latents: z_0, scaled, (B, 4, 16, 16).
        captions: B texts, some of them empty.
        noise: eps, the shape of the latents.
        timesteps: (B,).
    """

    latents: Tensor
    captions: list[str]
    noise: Tensor
    timesteps: Tensor


@dataclass(frozen=True)
class BasePortraits:
    """The base split.

    Attributes:
        latents: scaled, (N, 4, 16, 16).
        portraits: N.
    """

    latents: Tensor
    portraits: list[Portrait]

    @classmethod
    def encoded(cls, folder: Path, autoencoder: AutoencoderKL) -> BasePortraits:
        """The split as latents, which are kept beside the portraits.

        Args:
            folder: of the renders.
            autoencoder: that encodes them.
        """
        portraits = [portrait for chunk in range(SPLITS["base"]) for portrait in portraits_of("base", chunk)]
        return cls(encoded_latents(folder, autoencoder), portraits)

    def drawn(self, count: int, num_train_timesteps: int, generator: torch.Generator) -> NoisedBatch:
        """A batch.

        Args:
            count: B.
            num_train_timesteps: of the noise schedule.
            generator: of everything that is random, on the CPU.
        """
        chosen = torch.randint(len(self.latents), (count,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [
            ""
            if rng.random() < UNCONDITIONAL
            else random_caption(self.portraits[i], rng, keep_order=0.8, leave_out=0.04)
            for i in chosen.tolist()
        ]
        noise = torch.randn(count, *self.latents.shape[1:], generator=generator)
        timesteps = torch.randint(num_train_timesteps, (count,), generator=generator)
        return NoisedBatch(self.latents[chosen], captions, noise, timesteps)


def velocity_loss(
    predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor
) -> Tensor:
    """Mean squared error of the velocity v = sqrt(a) eps - sqrt(1 - a) z_0 (Salimans & Ho 2022).

    Args:
        predict: from z_t, (B, 4, 16, 16), and timesteps, (B,), to the predicted velocity.
        latents: z_0, scaled, (B, 4, 16, 16).
        noise: eps, the same shape.
        timesteps: (B,).
        alphas: cumulative product of the schedule's alphas, (num_train_timesteps,); ``a`` is that of the timestep.

    Returns:
        a scalar.
    """
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    predicted = predict(signal * latents + spread * noise, timesteps)
    return F.mse_loss(predicted.float(), signal * noise - spread * latents)
