"""A loaded text-to-image model. Its one UNet serves both paths: with its adapters off it *is* the reference path.

The tiny model and Stable Diffusion 1.5 run the same code; what differs is in
:class:`spf_lite.models.specification.BackboneSpec`.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from spf_lite.models.adapters import adapters_off, check_cross_attention
from spf_lite.models.clip import Clip
from spf_lite.models.codec import decode_latents
from spf_lite.models.errors import BackboneError
from spf_lite.models.quiet import no_loading_bars
from spf_lite.models.specification import BackboneSpec, specification_of
from spf_lite.models.trainable import Trainable


@dataclass
class Backbone:
    """A loaded pipeline, its specification, and CLIP (loaded when it is first asked for)."""

    pipe: StableDiffusionPipeline
    spec: BackboneSpec
    _clip: Clip | None = field(default=None, repr=False)
    trainable: Trainable | None = field(default=None, repr=False)

    def reference(self) -> AbstractContextManager[UNet2DConditionModel]:
        """Gives the untouched UNet: whatever is being trained is taken back for the time."""
        return self.trainable.reference() if self.trainable else adapters_off(self.pipe.unet)

    @cached_property
    def preview(self) -> AutoencoderTiny | None:
        """The small decoder for one-step predictions, if the specification names one."""
        if self.spec.preview is None:
            return None
        with no_loading_bars():
            model = AutoencoderTiny.from_pretrained(self.spec.preview)
        return model.requires_grad_(False).eval().to(self.pipe.device)

    def decode_preview(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, C, h, w) to images (B, 3, H, W), about in [0, 1], by the cheapest decoder that the
        specification names: CLIP sees these during training. The gradient flows."""
        if self.preview is None:
            return decode_latents(self.pipe, latents)
        drawn: Tensor = self.preview.decode(latents).sample
        return drawn / 2 + 0.5

    @cached_property
    def clip(self) -> Clip:
        """The CLIP model that measures phrases and portraits."""
        return (self._clip or Clip.load(self.spec.clip)).to(self.pipe.device)


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
    spec = specification_of(name)
    spec = replace(spec, dtype=dtype or spec.dtype)
    is_path = name == "tiny" or Path(spec.source).exists() or name.startswith((".", "/", "~"))
    if is_path and not (Path(spec.source) / "model_index.json").is_file():
        raise BackboneError(f"no Stable Diffusion model in {spec.source}: there is no model_index.json")
    try:
        with no_loading_bars():
            pipe = StableDiffusionPipeline.from_pretrained(
                spec.source, safety_checker=None, requires_safety_checker=False
            )
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(f"{spec.source!r} cannot be loaded as a Stable Diffusion pipeline: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    check_cross_attention(pipe.unet)
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False).eval()
        # transformers may have taken the type that its part is stored in, diffusers always takes 32 bits.
        if module.dtype != spec.dtype:
            torch.nn.Module.to(module, spec.dtype)  # diffusers' own would warn of parts that there are none of
    # No layer is larger than the latents.
    resolution = min(spec.attention_resolution, int(np.max(pipe.unet.config.sample_size)))
    return Backbone(pipe.to(device or best_device()), replace(spec, attention_resolution=resolution))
