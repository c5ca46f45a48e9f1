"""Loading a text-to-image model, and one UNet that is both paths: with its adapters off it *is* the reference.

The tiny model and Stable Diffusion 1.5 run the same code; what differs is in :class:`spf_lite.facts.Facts`.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from spf_lite.adapters import adapters_off, check_cross_attention
from spf_lite.clip import Clip
from spf_lite.facts import GUIDANCE_SCALE, BackboneError, Facts, facts_of
from spf_lite.prompts import check_length
from spf_lite.quiet import no_loading_bars

if TYPE_CHECKING:
    from spf_lite.trainable import Trainable


@dataclass
class Backbone:
    """A loaded pipeline, its facts, and CLIP (loaded when it is first asked for)."""

    pipe: StableDiffusionPipeline
    facts: Facts
    _clip: Clip | None = field(default=None, repr=False)
    trainable: Trainable | None = field(default=None, repr=False)

    def reference(self) -> AbstractContextManager[UNet2DConditionModel]:
        """Gives the untouched UNet: whatever is being trained is taken back for the time."""
        return self.trainable.reference() if self.trainable else adapters_off(self.pipe.unet)

    @cached_property
    def preview(self) -> AutoencoderTiny | None:
        """The small decoder for one-step predictions, if the facts name one."""
        if self.facts.preview is None:
            return None
        with no_loading_bars():
            model = AutoencoderTiny.from_pretrained(self.facts.preview)
        return model.requires_grad_(False).eval().to(self.pipe.device)

    def draft(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to pictures (B, 3, H, W), about in [0, 1], as cheaply as can be: for CLIP's
        eyes during training. The gradient flows."""
        if self.preview is None:
            return decode_latents(self.pipe, latents)
        drawn: Tensor = self.preview.decode(latents).sample
        return drawn / 2 + 0.5

    @cached_property
    def clip(self) -> Clip:
        """The CLIP model that measures phrases and portraits."""
        return (self._clip or Clip.load(self.facts.clip)).to(self.pipe.device)


def best_device() -> torch.device:
    """This process's graphics card, if there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def load(name: str = "tiny", device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """Load a backbone.

    Args:
        name: ``tiny`` (shipped), ``sd15`` (from the hub), or any folder or hub id of a Stable Diffusion pipeline.
        device: where its modules go; default: :func:`best_device`.
        dtype: of its weights; default: 32 bits. Half of it saves memory on a graphics card, and wants training in mixed
            precision. CLIP, which measures, keeps 32.

    Raises:
        BackboneError: if there is no such model, it is no Stable Diffusion pipeline, or its UNet has no
            cross-attention.
    """
    facts = facts_of(name)
    facts = replace(facts, dtype=dtype or facts.dtype)
    is_path = name == "tiny" or Path(name).exists() or name.startswith((".", "/", "~"))
    if is_path and not (Path(facts.source) / "model_index.json").is_file():
        raise BackboneError(f"no Stable Diffusion model in {facts.source}: there is no model_index.json")
    try:
        with no_loading_bars():
            pipe = StableDiffusionPipeline.from_pretrained(
                facts.source, safety_checker=None, requires_safety_checker=False
            )
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(f"{facts.source!r} cannot be loaded as a Stable Diffusion pipeline: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    check_cross_attention(pipe.unet)
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False).eval()
        # transformers may have taken the type that its part is stored in, diffusers always takes 32 bits.
        if module.dtype != facts.dtype:
            torch.nn.Module.to(module, facts.dtype)  # diffusers' own would warn of parts that there are none of
    # No layer is larger than the latents.
    resolution = min(facts.attention_resolution, int(np.max(pipe.unet.config.sample_size)))
    return Backbone(pipe.to(device or best_device()), replace(facts, attention_resolution=resolution))


@torch.no_grad()
def encode_text(pipe: StableDiffusionPipeline, ids: Tensor) -> Tensor:
    """Token ids (B, L) to ``encoder_hidden_states`` (B, L, width), in 32 bits."""
    hidden: Tensor = pipe.text_encoder(ids.to(pipe.device)).last_hidden_state
    return hidden.float()


@torch.no_grad()
def encode_images(pipe: StableDiffusionPipeline, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] to scaled latents (B, 4, H/8, W/8), the mean of the posterior, in 32 bits."""
    latents: Tensor = pipe.vae.encode((images * 2 - 1).to(pipe.device, pipe.vae.dtype)).latent_dist.mean
    return latents.float() * pipe.vae.config.scaling_factor


def decode_latents(pipe: StableDiffusionPipeline, latents: Tensor) -> Tensor:
    """Scaled latents (B, 4, h, w) to images (B, 3, 8h, 8w), about in [0, 1]; the gradient flows."""
    decoded: Tensor = pipe.vae.decode((latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)).sample
    return decoded.float() / 2 + 0.5


@torch.no_grad()
def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 25,
    guidance_scale: float = GUIDANCE_SCALE,
    negative_prompt: str = "",
    batch_size: int = 32,
    output_type: str = "pil",
) -> Any:
    """Draw one portrait per prompt and seed.

    Args:
        pipe: the pipeline, with or without an adapter.
        prompts: N texts.
        seeds: N numbers; the same seed gives the same starting noise, whatever the batch.
        steps: denoising steps.
        guidance_scale: of classifier-free guidance (Ho & Salimans 2022); 1 switches it off. The default suits the tiny
            model; its :class:`~spf_lite.facts.Facts` know what suits another.
        negative_prompt: what guidance leads away from.
        batch_size: portraits denoised at a time.
        output_type: ``pil``, or ``latent`` for scaled latents (N, 4, h, w).

    Returns:
        N images, or latents.

    Raises:
        ValueError: if there are not as many seeds as prompts, or there are no steps.
        PromptTooLongError: if the text encoder does not take a prompt whole (diffusers would cut off its end).
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds: each portrait needs both")
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one is needed")
    for prompt in {*prompts, negative_prompt}:
        check_length(pipe.tokenizer, prompt)
    results: list[Any] = []
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        images = pipe(
            prompt=part,
            negative_prompt=[negative_prompt] * len(part),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds[start : start + batch_size]],
            output_type=output_type,
        ).images
        results.extend(images)
    if output_type == "latent":
        return torch.stack(results) if results else torch.empty(0)
    return results


def to_tensor(images: Sequence[Image.Image], size: int | None = None) -> Tensor:
    """PIL images to float (N, 3, H, W) in [0, 1], resized to ``size`` pixels a side if given."""
    resized = [
        image if size in (None, image.width) else image.resize((size, size), Image.Resampling.LANCZOS)
        for image in images
    ]
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in resized])).permute(0, 3, 1, 2) / 255
