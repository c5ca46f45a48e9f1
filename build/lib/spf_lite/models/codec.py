"""Text encoder and autoencoder: texts to embeddings, images to latents, latents to images.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from spf_lite.models.backbones.registry import architecture_of


@torch.no_grad()
def encode_text(pipe: DiffusionPipeline, ids: Tensor) -> Tensor:
    """Encode texts, as the model's class does (:meth:`spf_lite.models.backbones.architecture.Architecture.encode`).

    Args:
        pipe: gives the text encoders.
        ids: token ids, (B, L), padded to the length of each text encoder.

    Returns:
        (B, R, width), float32, on the pipeline's device. Of Stable Diffusion these are ``encoder_hidden_states``, and R
        is L.
    """
    return architecture_of(pipe).encode(pipe, ids)


@torch.no_grad()
def encode_images(pipe: DiffusionPipeline, images: Tensor) -> Tensor:
    """Encode images as latents: the mean of the autoencoder's posterior times its scaling factor (Rombach et al. 2022).

    If the autoencoder has a shift (Stable Diffusion 3), it is subtracted before.

    Args:
        pipe: gives the autoencoder.
        images: (B, 3, H, W) in [0, 1].

    Returns:
        scaled latents, (B, C, H/8, W/8), float32, on the pipeline's device.
    """
    latents: Tensor = pipe.vae.encode((images * 2 - 1).to(pipe.device, pipe.vae.dtype)).latent_dist.mean
    shift = pipe.vae.config.get("shift_factor")
    latents = latents.float() if shift is None else latents.float() - float(shift)
    return latents * float(pipe.vae.config.scaling_factor)


def decode_latents(pipe: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Decode latents to images.

    Args:
        pipe: gives the autoencoder.
        latents: scaled, (B, C, h, w).

    Returns:
        (B, 3, 8h, 8w), float32, in [0, 1] but for small overshoots; the gradient flows to ``latents``.
    """
    latents, shift = latents / pipe.vae.config.scaling_factor, pipe.vae.config.get("shift_factor")
    latents = latents if shift is None else latents + shift
    decoded: Tensor = pipe.vae.decode(latents.to(pipe.vae.dtype)).sample
    return decoded.float() / 2 + 0.5


def to_tensor(images: Sequence[Image.Image], size: int | None = None) -> Tensor:
    """Convert PIL images to a float tensor (N, 3, H, W) in [0, 1], resized to ``size`` pixels a side if given."""
    resized = [
        image if size in (None, image.width) else image.resize((size, size), Image.Resampling.LANCZOS)
        for image in images
    ]
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in resized])).permute(0, 3, 1, 2) / 255
