"""Two decoders for latents that are not quite those of a portrait: the pipeline's own, and a small one for training.

A UNet generates latents a little beside those that the encoder makes. So both decoders are trained on latents with
noise, while the encoder stays frozen: the UNet can be trained on its latents at the same time.

The small decoder serves response enhancement (term L_enh of the method), which decodes a one-step prediction in every
training step and backpropagates through the decoder. CLIP takes 64 x 64 pixels, and the full decoder's last stage, at
128 x 128, costs the most. So the small one stops at 64 x 64. It is an ``AutoencoderTiny`` of diffusers, as TAESD is for
Stable Diffusion.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from spf_lite.pretrain.autoencoder import EDGE_WEIGHT, edge_loss, encoded_latents, to_tensor
from spf_lite.pretrain.dataset import SPLITS, load_split
from spf_lite.pretrain.loop import Schedule, fit

SCHEDULE = Schedule(steps=600, learning_rate=1e-3, warmup=30, decay=400, ema=0.99, weight_decay=0.0, seed=1)
BATCH = 4
#: Largest standard deviation of the noise on a latent, in standard deviations of the latents.
NOISE = 0.15

PREVIEW_SCHEDULE = Schedule(steps=1500, learning_rate=2e-3, warmup=50, decay=900, ema=0.99, weight_decay=0.0, seed=2)
PREVIEW_BATCH = 16
#: One-step predictions are further from a portrait's latents than finished ones.
PREVIEW_NOISE = 0.3


def train_decoder(folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = SCHEDULE) -> AutoencoderKL:
    """Train or resume; returns the autoencoder with its encoder unchanged and its decoder's averaged weights."""
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
        return _losses(model, latents, images, NOISE * deviation, generator)

    model = fit("decoder", autoencoder, step, schedule, folder)
    assert isinstance(model, AutoencoderKL)
    return model.requires_grad_(True)


def build_preview(width: int = 32) -> AutoencoderTiny:
    """The untrained small decoder. Its encoder is never used, and as small as the class allows."""
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(1, 1, 1),
        num_encoder_blocks=(1, 1, 1),
        decoder_block_out_channels=(width, width, width),
        num_decoder_blocks=(2, 1, 0),
        scaling_factor=1.0,
    )


def train_preview(folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = PREVIEW_SCHEDULE) -> AutoencoderTiny:
    """Train or resume; returns the small decoder with averaged weights."""
    pool = encoded_latents(folder, autoencoder)
    portraits = torch.from_numpy(load_split(folder / "portraits", "base", SPLITS["base"]).images)
    assert len(pool) == len(portraits)

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, AutoencoderTiny)
        chosen = torch.randint(len(pool), (PREVIEW_BATCH,), generator=generator)
        images = F.avg_pool2d(to_tensor(portraits[chosen]), 2)
        return _losses(model, pool[chosen], images, PREVIEW_NOISE, generator)

    model = fit("preview", build_preview(), step, schedule, folder)
    assert isinstance(model, AutoencoderTiny)
    return model


def _losses(
    model: AutoencoderKL | AutoencoderTiny, latents: Tensor, images: Tensor, noise: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """L1 and edge terms of images (B, 3, H, W) decoded from latents (B, 4, h, w) with noise of random strength."""
    strength = noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
    decoded = model.decode(latents + strength * torch.randn(latents.shape, generator=generator)).sample.float()
    l1, edge = (decoded - images).abs().mean(), edge_loss(decoded, images)
    return {"loss": l1 + EDGE_WEIGHT * edge, "l1": l1.detach(), "edge": edge.detach()}
