"""A second network for the tiny world: a diffusion transformer (DiT) of PixArt-Sigma's class, with a small T5.

It paints the latents of the same autoencoder as the UNet, from the same portraits, with the same noise schedule and
prediction (:mod:`spf_lite.pretrain.unet`). What differs is the architecture: 64 patches of 2 x 2 latents that attend to
each other and to the text in every layer, and no convolution between them. It never sees a target either.

No text encoder of the tiny world is a T5, so one is trained along. An empty text is a single end token.

Source: Peebles & Xie 2023 (arXiv 2212.09748); Chen et al. 2024 (arXiv 2403.04692).
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from spf_lite.pretrain.denoising import BasePortraits, velocity_loss
from spf_lite.pretrain.loop import Schedule, fit, process_state
from spf_lite.pretrain.unet import build_scheduler
from spf_lite.tiny_world.portraits import all_phrases

SCHEDULE = Schedule(steps=3700, learning_rate=1e-3, warmup=300, decay=1600, ema=0.998)
BATCH = 32
#: Width of the text encoder, and of the transformer.
TEXT_WIDTH, WIDTH, HEADS, LAYERS = 128, 192, 6, 6
#: Tokens that are no part of a text: padding, the end, and what is neither a word nor a letter.
_PIECES = ("<pad>", "</s>", "<unk>")


def build_tokenizer() -> T5Tokenizer:
    """The tokenizer: whole words of the tiny world, and letters for all others."""
    words = sorted({word for phrase in all_phrases() for word in phrase.split()})
    vocabulary = [*((piece, 0.0) for piece in _PIECES), *((f"▁{word}", -1.0) for word in words), (",", -1.0)]
    vocabulary += [(letter, -9.0) for letter in "▁abcdefghijklmnopqrstuvwxyz0123456789-'."]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=300)


class Painter(nn.Module):
    """The transformer and its text encoder, which are trained together.

    Args:
        tokenizer: whose tokens the text encoder takes.
    """

    def __init__(self, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.transformer = PixArtTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=LAYERS,
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            cross_attention_dim=WIDTH,
            caption_channels=TEXT_WIDTH,
            interpolation_scale=1,
            use_additional_conditions=False,
        )
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=TEXT_WIDTH,
                d_kv=32,
                d_ff=4 * TEXT_WIDTH,
                num_layers=3,
                num_heads=4,
                dropout_rate=0.0,
            )
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The predicted velocity.

        Args:
            noisy: z_t, (B, 4, 16, 16).
            timesteps: (B,).
            ids: token ids, (B, length).
            mask: 1 where there is a token and 0 where there is padding, (B, length).
        """
        text = self.text_encoder(ids, attention_mask=mask)[0]
        predicted: Tensor = self.transformer(
            noisy,
            encoder_hidden_states=text,
            timestep=timesteps,
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return predicted


def build(tokenizer: T5Tokenizer) -> Painter:
    """The untrained networks."""
    torch.manual_seed(0)
    return Painter(tokenizer)


def loss(
    painter: nn.Module, latents: Tensor, noise: Tensor, timesteps: Tensor, tokens: tuple[Tensor, Tensor], alphas: Tensor
) -> Tensor:
    """Mean squared error of the velocity (:func:`spf_lite.pretrain.denoising.velocity_loss`).

    Args:
        painter: a :class:`Painter`.
        latents: z_0, scaled, (B, 4, 16, 16).
        noise: eps, the same shape.
        timesteps: (B,).
        tokens: ids and mask of the texts, (B, length) each.
        alphas: cumulative product of the schedule's alphas, (num_train_timesteps,).

    Returns:
        a scalar.
    """

    def predict(noisy: Tensor, times: Tensor) -> Tensor:
        velocity: Tensor = painter(noisy, times, *tokens)
        return velocity

    return velocity_loss(predict, latents, noise, timesteps, alphas)


def train(
    folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = SCHEDULE
) -> tuple[PixArtTransformer2DModel, T5EncoderModel, T5Tokenizer]:
    """Train or resume; returns the networks with averaged weights, and the tokenizer.

    Args:
        folder: of the portraits, the checkpoint and the log.
        autoencoder: that encodes the portraits.
        schedule: how long and how fast.
    """
    portraits = BasePortraits.encoded(folder, autoencoder)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    alphas, num_train_timesteps = scheduler.alphas_cumprod, int(scheduler.config["num_train_timesteps"])
    batch = BATCH // process_state().num_processes

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = portraits.drawn(batch, num_train_timesteps, generator)
        read = tokenizer(drawn.captions, padding=True, return_tensors="pt")
        tokens = read.input_ids, read.attention_mask
        return {"loss": loss(model, drawn.latents, drawn.noise, drawn.timesteps, tokens, alphas)}

    painter = build(tokenizer)
    # Plain matrix products, as for the UNet.
    painter.transformer.set_attn_processor(AttnProcessor())
    model = fit("transformer", painter, step, schedule, folder)
    assert isinstance(model, Painter)
    return model.transformer, model.text_encoder, tokenizer
