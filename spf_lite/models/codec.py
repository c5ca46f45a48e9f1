"""Text encoder and autoencoder: texts to embeddings, images to latents, latents to images.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor


@torch.no_grad()
def encode_text(pipe: StableDiffusionPipeline, ids: Tensor) -> Tensor:
    """Encode texts as the UNet takes them.

    Args:
        pipe: gives the text encoder.
        ids: token ids, (B, L), padded to the text encoder's length.

    Returns:
        ``encoder_hidden_states``, (B, L, width), float32, on the pipeline's device.
    """
    hidden: Tensor = pipe.text_encoder(ids.to(pipe.device)).last_hidden_state
    return hidden.float()


@torch.no_grad()
def encode_images(pipe: StableDiffusionPipeline, images: Tensor) -> Tensor:
    """Encode images as latents: the mean of the autoencoder's posterior times its scaling factor (Rombach et al. 2022).

    Args:
        pipe: gives the autoencoder.
        images: (B, 3, H, W) in [0, 1].

    Returns:
        scaled latents, (B, C, H/8, W/8), float32, on the pipeline's device.
    """
    latents: Tensor = pipe.vae.encode((images * 2 - 1).to(pipe.device, pipe.vae.dtype)).latent_dist.mean
    return latents.float() * float(pipe.vae.config.scaling_factor)


def decode_latents(pipe: StableDiffusionPipeline, latents: Tensor) -> Tensor:
    """Decode latents to images.

    Args:
        pipe: gives the autoencoder.
        latents: scaled, (B, C, h, w).

    Returns:
        (B, 3, 8h, 8w), float32, in [0, 1] but for small overshoots; the gradient flows to ``latents``.
    """
    decoded: Tensor = pipe.vae.decode((latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)).sample
    return decoded.float() / 2 + 0.5


def to_tensor(images: Sequence[Image.Image], size: int | None = None) -> Tensor:
    """Convert PIL images to a float tensor (N, 3, H, W) in [0, 1], resized to ``size`` pixels a side if given."""
    resized = [
        image if size in (None, image.width) else image.resize((size, size), Image.Resampling.LANCZOS)
        for image in images
    ]
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in resized])).permute(0, 3, 1, 2) / 255
