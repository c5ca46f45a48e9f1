"""Sampling portraits from a backbone.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from PIL import Image
from torch import Tensor

from spf_lite.models.backbone import Backbone
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.tokenizer import check_length

#: Small portraits that are denoised at a time.
SMALL = 32


@overload
def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = ...,
    guidance_scale: float | None = ...,
    negative_prompt: str = ...,
    batch_size: int | None = ...,
    height: int | None = ...,
    width: int | None = ...,
    output_type: Literal["pil"] = ...,
) -> list[Image.Image]: ...


@overload
def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = ...,
    guidance_scale: float | None = ...,
    negative_prompt: str = ...,
    batch_size: int | None = ...,
    height: int | None = ...,
    width: int | None = ...,
    output_type: Literal["latent"],
) -> Tensor: ...


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 25,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    batch_size: int | None = None,
    height: int | None = None,
    width: int | None = None,
    output_type: Literal["pil", "latent"] = "pil",
) -> list[Image.Image] | Tensor:
    """Sample one portrait per prompt and seed.

    Args:
        backbone: the model, with or without an adapter.
        prompts: N texts.
        seeds: N numbers; the same seed gives the same initial noise, whatever the batch.
        steps: denoising steps of the pipeline's scheduler.
        guidance_scale: of classifier-free guidance (Ho & Salimans 2022); 1 switches it off. Default: the backbone's own
            (:attr:`spf_lite.models.specification.BackboneSpec.guidance_scale`).
        negative_prompt: what guidance leads away from; empty: what the model's class leads away from by itself.
        batch_size: portraits denoised at a time; None: :data:`SMALL` of the tiny model, fewer of a larger one
            (:mod:`spf_lite.models.running.at_a_time`).
        height: in pixels; default: the model's own size.
        width: in pixels; default: the model's own size.
        output_type: ``pil``, or ``latent`` for scaled latents (N, C, h, w).

    Returns:
        N images, or their latents.

    Raises:
        ValueError: if there are not as many seeds as prompts, or steps or batch size are below 1.
        PromptTooLongError: if a prompt exceeds the text encoder's length (diffusers would truncate it).
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds: each portrait needs both")
    if batch_size is None:
        factor = backbone.pipe.vae_scale_factor
        batch_size = at_a_time([given // factor if given else backbone.side for given in (height, width)], SMALL)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least one portrait at a time is needed")
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one is needed")
    pipe, architecture = backbone.pipe, backbone.architecture
    for prompt in {*prompts, negative_prompt}:
        for reader in backbone.readers:
            check_length(reader, prompt)
    scale = backbone.spec.guidance_scale if guidance_scale is None else guidance_scale
    results: list[Image.Image | Tensor] = []
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        results.extend(
            pipe(
                prompt=part,
                num_inference_steps=steps,
                guidance_scale=scale,
                height=height,
                width=width,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds[start : start + batch_size]],
                output_type=output_type,
                **architecture.sampling_options(pipe, [negative_prompt] * len(part)),
            ).images
        )
    if output_type == "latent":
        return torch.stack(results) if results else torch.empty(0)  # type: ignore[arg-type]
    return results  # type: ignore[return-value]
