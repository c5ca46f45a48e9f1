"""The UNet of the tiny world: 4 x 16 x 16 latents, conditioned on text by cross-attention. It never sees a target.

v-prediction (Salimans & Ho 2022) on a noise schedule that ends in almost pure noise. Stable Diffusion's own schedule
keeps 0.5 % of the signal at the last timestep. Averaged over a flat background of a 16 x 16 latent, that is enough to
read the background's colour from the *noisy input*, and a model that can do so in training ignores the word for it
(Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed").
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from spf_lite.pretrain.clip import tokenize
from spf_lite.pretrain.denoising import BasePortraits, velocity_loss
from spf_lite.pretrain.loop import Schedule, fit, process_state

SCHEDULE = Schedule(steps=4500, learning_rate=1e-3, warmup=200, decay=3000, ema=0.998)
BATCH = 32


def build() -> UNet2DConditionModel:
    """The untrained network."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of DDPM (Ho et al. 2020): betas linear from 1e-4 to 0.02; 4e-5 of the signal stays."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def loss(unet: nn.Module, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, alphas: Tensor) -> Tensor:
    """Mean squared error of the velocity (:func:`spf_lite.pretrain.denoising.velocity_loss`).

    Args:
        unet: the model.
        latents: z_0, scaled, (B, 4, 16, 16).
        noise: eps, the same shape.
        timesteps: (B,).
        text: ``encoder_hidden_states``, (B, length, 128).
        alphas: cumulative product of the schedule's alphas, (num_train_timesteps,); ``a`` is that of the timestep.

    Returns:
        a scalar.
    """

    def predict(noisy: Tensor, times: Tensor) -> Tensor:
        velocity: Tensor = unet(noisy, times, encoder_hidden_states=text, return_dict=False)[0]
        return velocity

    return velocity_loss(predict, latents, noise, timesteps, alphas)


def train(
    folder: Path,
    autoencoder: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    schedule: Schedule = SCHEDULE,
) -> UNet2DConditionModel:
    """Train or resume; returns the UNet with averaged weights."""
    portraits = BasePortraits.encoded(folder, autoencoder)
    scheduler = build_scheduler()
    alphas, num_train_timesteps = scheduler.alphas_cumprod, int(scheduler.config["num_train_timesteps"])
    length = tokenizer.model_max_length
    batch = BATCH // process_state().num_processes

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = portraits.drawn(batch, num_train_timesteps, generator)
        ids = tokenize(tokenizer, drawn.captions, length)
        with torch.no_grad():
            text = text_encoder(ids).last_hidden_state
        return {"loss": loss(model, drawn.latents, drawn.noise, drawn.timesteps, text, alphas)}

    unet = build()
    # Plain matrix products instead of the fused attention, whose backward pass in 16 bits is ten times slower on a CPU.
    unet.set_attn_processor(AttnProcessor())
    model = fit("unet", unet, step, schedule, folder)
    assert isinstance(model, UNet2DConditionModel)
    return model
