"""Memory of a training step by cause, counted on PyTorch's "meta" device: tensors with shapes and without values.

A step of any size takes seconds there and next to no memory. Tensors that autograd saves for backward are counted by
:class:`torch.autograd.graph.saved_tensors_hooks`, each storage once. Not counted are temporary tensors within one
operation, and what PyTorch, its kernels and the driver take.

A graphics card's autocast and fused attention are emulated (:mod:`spf_lite.profiling.like_cuda`).

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import predicted_latents
from spf_lite.profiling.cost import DUAL, ENHANCED
from spf_lite.profiling.like_cuda import LikeCuda
from spf_lite.profiling.random_models import random_batch
from spf_lite.profiling.recomputed import counted_blocks
from spf_lite.profiling.saved import saved_for_backward, storage_key, total_bytes
from spf_lite.profiling.shapes import shape_on_meta

#: Kinds of training step, by memory in ascending order.
VARIANTS = ("plain LoRA", "dual path", "dual path, enhancement", "two models")
_LOSSES = {"plain LoRA": None, "dual path": DUAL, "dual path, enhancement": ENHANCED, "two models": DUAL}
#: Rank of the adapter, as in the recipes.
RANK = 16


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step by cause.

    Attributes:
        fixed: bytes that do not depend on the batch size.
        per_portrait: bytes that each portrait of the batch adds.
    """

    fixed: dict[str, int]
    per_portrait: dict[str, int]

    def parts(self, batch_size: int = 1) -> dict[str, int]:
        """Bytes by cause for one batch size: the fixed causes, then those that grow with the batch.

        Raises:
            ValueError: if the batch is empty.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one portrait is needed")
        return {**self.fixed, **{cause: batch_size * each for cause, each in self.per_portrait.items()}}

    def total(self, batch_size: int = 1) -> int:
        """Total bytes for one batch size.

        Raises:
            ValueError: if the batch is empty.
        """
        return sum(self.parts(batch_size).values())


def sd15_on_meta(tokenizer_of: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """Stable Diffusion 1.5 with a LoRA adapter on the meta device; it takes next to no memory.

    Args:
        tokenizer_of: a backbone whose tokenizer is used; any will do.
        dtype: of the frozen weights, as in :func:`spf_lite.models.backbone.load`; adapter and CLIP are float32.
    """
    return shape_on_meta("sd15", tokenizer_of, dtype, RANK)


def step_memory(
    backbone: Backbone,
    variant: str = "dual path",
    pixels: int = 512,
    compute: torch.dtype | None = None,
    checkpointing: bool = False,
) -> StepMemory:
    """Count the memory of one training step.

    Text encoders and autoencoder are counted as if they were on the card. The trainer moves those that a step does not
    need to main memory (:mod:`spf_lite.models.running.resting`), so that its steps take less than this. The preparation
    of stage 2 has them all while it paints and encodes, but not for averaged maps and for the sizes of the terms.

    Args:
        backbone: on the meta device, with an adapter as its trainable, as
            :func:`spf_lite.profiling.shapes.shape_on_meta` makes it.
        variant: one of :data:`VARIANTS`. Enhancement is counted for every portrait, although it applies only at the
            lower seven tenths of the timesteps.
        pixels: height and width of the portraits.
        compute: dtype of autocast (``mixed_precision`` of the trainer); None: no autocast.
        checkpointing: whether the network's activations are computed again in the backward pass
            (``gradient_checkpointing`` of the trainer).

    Raises:
        ValueError: for another variant, a size that the UNet cannot downsample, or a backbone that is not on the meta
            device.
        AttentionError: if no layer has the resolution that is recorded.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: expected one of {', '.join(VARIANTS)}")
    losses = _LOSSES[variant]
    counted = losses_memory(backbone, losses, pixels, compute, checkpointing, variant == "two models")
    if losses is None:
        return counted
    whole = counted.per_portrait
    alone = _growth(backbone, plain_pass, latent_side(backbone, pixels), compute, checkpointing).saved
    apart = {"activations": alone, "comparing the paths": whole["activations"] - alone}
    return StepMemory(counted.fixed, {**apart, **{name: size for name, size in whole.items() if name not in apart}})


def losses_memory(
    backbone: Backbone,
    losses: TrainConfig | None,
    pixels: int,
    compute: torch.dtype | None = None,
    checkpointing: bool = False,
    two_models: bool = False,
) -> StepMemory:
    """Count the memory of one training step with the losses of a configuration; what is not said here is as in
    :func:`step_memory`. All activations are one cause.

    Args:
        backbone: on the meta device, with a trainable.
        losses: whose weights say what stage 2 computes; None: one path, with the denoising loss alone.
        pixels: height and width of the portraits.
        compute: dtype of autocast; None: no autocast.
        checkpointing: whether the network's activations are computed again in the backward pass.
        two_models: whether the reference path is a network of its own.
    """
    side = latent_side(backbone, pixels)
    run = plain_pass if losses is None else partial(dual_pass, losses=unenhanced(losses))
    step = _growth(backbone, run, side, compute, checkpointing)
    # What is saved for backward and does not grow with the batch are the copies of weights that autocast makes.
    per_portrait, copies = {"activations": step.saved}, step.copies
    if checkpointing:
        per_portrait["largest block"] = step.block
    enhance = losses is not None and losses.weight_enhancement > 0
    if enhance:
        more = _growth(backbone, enhancement_pass, side, compute)
        per_portrait["enhancement"] = more.saved
        copies += more.copies
    fixed = model_bytes(backbone, clip=losses is not None, preview=enhance, two_models=two_models)
    if compute is not None:
        # The largest block of two portraits may be a little over twice that of one: no rest is left below zero.
        fixed["16-bit copies of weights"] = max(0, copies)
    return StepMemory(fixed, per_portrait)


def latent_side(backbone: Backbone, pixels: int) -> int:
    """Height and width of the latents of portraits.

    Raises:
        ValueError: for a size that the network cannot downsample, or a backbone that is not on the meta device or has
            no trainable.
    """
    network, factor = backbone.network, backbone.pipe.vae_scale_factor
    multiple = factor * backbone.architecture.size_multiple(network.config)
    if pixels < multiple or pixels % multiple:
        raise ValueError(f"pixels={pixels}: expected a multiple of {multiple}")
    if network.device.type != "meta" or backbone.trainable is None:
        raise ValueError("expected a backbone on the meta device with a trainable, as shape_on_meta makes it")
    return int(pixels // factor)


def unenhanced(losses: TrainConfig) -> TrainConfig:
    """The same losses without enhancement, which is counted by itself, and without PureCC's extractor."""
    return replace(losses, weight_enhancement=0.0, weight_purecc=0.0)


@dataclass(frozen=True)
class _Growth:
    """Bytes of a pass: what each portrait adds to what is saved and to the largest block, and what none does."""

    saved: int
    block: int
    copies: int


def _growth(
    backbone: Backbone,
    run: Callable[[Backbone, int, int], Tensor],
    side: int,
    compute: torch.dtype | None,
    checkpointing: bool = False,
) -> _Growth:
    with LikeCuda(compute):
        one, two = (_saved(backbone, partial(run, backbone, size, side), checkpointing) for size in (1, 2))
    saved, block = two[0] - one[0], two[1] - one[1]
    return _Growth(saved, block, sum(one) - saved - block)


def model_bytes(
    backbone: Backbone, clip: bool = True, preview: bool = False, two_models: bool = False
) -> dict[str, int]:
    """Bytes of the models by cause, and of what the optimiser keeps.

    Args:
        backbone: with a trainable.
        clip: whether CLIP is there.
        preview: whether the small decoder of enhancement is, if the model has one.
        two_models: whether the reference path is a network of its own.
    """
    trainable, frozen = backbone.trainable, backbone.architecture.modules(backbone.pipe)
    assert trainable is not None
    learned = _bytes(trainable.parameters)
    name = backbone.architecture.network_name
    parts = {name: _bytes(frozen.pop(backbone.architecture.part).parameters()) - learned}
    if two_models:
        parts[f"second {name}"] = parts[name]
    parts["text encoder, autoencoder"] = sum(_bytes(module.parameters()) for module in frozen.values())
    if clip:
        parts["CLIP"] = _bytes(backbone.clip.model.parameters())
    if preview and backbone.preview is not None:
        parts["CLIP"] += _bytes(backbone.preview.parameters())
    parts["adapter, gradient, AdamW"] = 4 * learned  # parameters, gradients, and AdamW's two moments
    return parts


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def plain_pass(backbone: Backbone, size: int, side: int) -> Tensor:
    batch = random_batch(backbone, size, side=side)
    return naive_step(backbone, batch, torch.zeros_like(batch.latents), _timesteps(batch)).terms["denoise"].mean()


def dual_pass(backbone: Backbone, size: int, side: int, losses: TrainConfig = DUAL) -> Tensor:
    batch = random_batch(backbone, size, side=side)
    with dual_path_step(backbone, batch, torch.zeros_like(batch.latents), _timesteps(batch), losses) as step:
        return torch.stack([term.mean() for term in step.terms.values()]).sum()


def enhancement_pass(backbone: Backbone, size: int, side: int) -> Tensor:
    """From the prediction to CLIP's embedding of the image; the loss itself is negligible."""
    batch = random_batch(backbone, size, side=side)
    response = torch.empty_like(batch.latents, requires_grad=True)
    latents = predicted_latents(backbone.pipe.scheduler, response, batch.latents, _timesteps(batch))
    return backbone.clip.image_features(backbone.decode_preview(latents).float().clamp(-0.2, 1.2))


def _timesteps(batch: Batch) -> Tensor:
    return torch.zeros(len(batch), dtype=torch.long, device=batch.latents.device)


def _saved(backbone: Backbone, run: Callable[[], Tensor], checkpointing: bool = False) -> tuple[int, int]:
    """Bytes that autograd saves for backward, and those of the largest block that is computed again.

    Both without the weights, which are counted as models.
    """
    pipe = backbone.pipe
    modules: list[nn.Module] = [backbone.network, pipe.vae, backbone.clip.model]
    if backbone.preview is not None:
        modules.append(backbone.preview)
    weights = {storage_key(parameter) for module in modules for parameter in module.parameters()}
    if not checkpointing:
        with saved_for_backward() as saved:
            run()
        return total_bytes(saved, weights), 0
    with counted_blocks(backbone.network, weights) as blocks, saved_for_backward() as saved:
        run()
    return total_bytes(saved, weights), max(blocks, default=0)
