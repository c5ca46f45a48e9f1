"""Polishing the decoder while the encoder stays frozen, so that the UNet can already be learning its latents.

The latents get a little noise: the decoder will be asked to draw what a UNet dreamt up, not what the encoder saw.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from spf_lite.pretrain.autoencoder import EDGE_WEIGHT, edges, to_tensor
from spf_lite.pretrain.dataset import load_split
from spf_lite.pretrain.loop import Schedule, fit

SCHEDULE = Schedule(steps=600, learning_rate=1e-3, warmup=30, decay=400, ema=0.99, weight_decay=0.0, seed=1)
BATCH = 4
#: Strongest noise on a latent, in standard deviations.
NOISE = 0.15


def train(folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = SCHEDULE) -> AutoencoderKL:
    """Train or resume; returns the autoencoder with its encoder untouched and its decoder's averaged weights."""
    base, mixed = load_split(folder / "portraits", "base", 12), load_split(folder / "portraits", "mixed")
    pool = torch.cat([torch.from_numpy(mixed.images), torch.from_numpy(base.images)])
    autoencoder.requires_grad_(False)
    autoencoder.decoder.requires_grad_(True)
    autoencoder.post_quant_conv.requires_grad_(True)
    deviation = 1 / autoencoder.config["scaling_factor"]

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, AutoencoderKL)
        images = to_tensor(pool[torch.randint(len(pool), (BATCH,), generator=generator)])
        with torch.no_grad():
            latents = model.encode(images).latent_dist.mean
        strength = NOISE * deviation * torch.rand(BATCH, 1, 1, 1, generator=generator)
        decoded = model.decode(latents + strength * torch.randn(latents.shape, generator=generator)).sample.float()
        l1 = (decoded - images).abs().mean()
        edge = torch.stack([(a - b).abs().mean() for a, b in zip(edges(decoded), edges(images), strict=True)]).mean()
        return {"loss": l1 + EDGE_WEIGHT * edge, "l1": l1.detach(), "edge": edge.detach()}

    model = fit("decoder", autoencoder, step, schedule, folder)
    assert isinstance(model, AutoencoderKL)
    return model.requires_grad_(True)
