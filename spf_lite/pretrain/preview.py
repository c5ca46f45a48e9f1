"""A small decoder from latents to half-size pictures, for looking at one-step predictions during training.

Response enhancement decodes a picture in every step and sends a gradient back through it. CLIP looks at 64 pixels a
side, and the full decoder's last stage, at 128, is the dearest part of it. So this one stops at 64: it is an
``AutoencoderTiny`` of diffusers, as TAESD is for Stable Diffusion, and learns to draw portraits from their latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from spf_lite.pretrain.autoencoder import EDGE_WEIGHT, edges, to_tensor
from spf_lite.pretrain.dataset import load_split
from spf_lite.pretrain.loop import Schedule, fit
from spf_lite.pretrain.unet import CHUNKS, encoded_latents

SCHEDULE = Schedule(steps=1500, learning_rate=2e-3, warmup=50, decay=900, ema=0.99, weight_decay=0.0, seed=2)
BATCH = 16
#: Strongest noise on a latent, in standard deviations: one-step predictions are rough.
NOISE = 0.3


def build(width: int = 32) -> AutoencoderTiny:
    """Untrained; only its decoder is ever used, the encoder is as small as the class allows."""
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(1, 1, 1),
        num_encoder_blocks=(1, 1, 1),
        decoder_block_out_channels=(width, width, width),
        num_decoder_blocks=(2, 1, 0),
        scaling_factor=1.0,
    )


def train(folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = SCHEDULE) -> AutoencoderTiny:
    """Train or resume."""
    pool = encoded_latents(folder, autoencoder)
    portraits = torch.from_numpy(load_split(folder / "portraits", "base", CHUNKS).images)
    assert len(pool) == len(portraits)

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, AutoencoderTiny)
        chosen = torch.randint(len(pool), (BATCH,), generator=generator)
        goal = F.avg_pool2d(to_tensor(portraits[chosen]), 2)
        latents = pool[chosen]
        strength = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        drawn = model.decode(latents + strength * torch.randn(latents.shape, generator=generator)).sample.float()
        l1 = (drawn - goal).abs().mean()
        edge = torch.stack([(a - b).abs().mean() for a, b in zip(edges(drawn), edges(goal), strict=True)]).mean()
        return {"loss": l1 + EDGE_WEIGHT * edge, "l1": l1.detach(), "edge": edge.detach()}

    model = fit("preview", build(), step, schedule, folder)
    assert isinstance(model, AutoencoderTiny)
    return model
