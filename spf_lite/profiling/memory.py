"""Where the memory of a training step goes, counted without running it: on tensors that have shapes and no numbers.

PyTorch's "meta" device goes through a step in well under a second, whatever its size. What autograd keeps for the way
back is counted as it is put aside (:class:`torch.autograd.graph.saved_tensors_hooks`), each stretch of memory once. Not
counted is what comes and goes within one operation, and what PyTorch, its kernels and the driver take for themselves.

In the book: :doc:`/11-real-models`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spf_lite.data.batch import Batch
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import predicted_latents
from spf_lite.models.trainable import Lora
from spf_lite.profiling.cost import DUAL
from spf_lite.profiling.random_models import random_batch, random_sd15

#: What a step can be, from the least to the most.
VARIANTS = ("plain LoRA", "dual path", "dual path, enhancement", "two models")
#: Rank of the adapter, as in the recipes.
RANK = 16

# What PyTorch's autocast computes in 16 bits, and what it takes back to 32 ("CUDA op-specific behavior" in its manual),
# as far as our models use it.
_LOW = {F.linear, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm, torch.einsum}
_LOW |= {F.scaled_dot_product_attention}
_HIGH = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.mse_loss, F.normalize, Tensor.pow}


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step by cause.

    Attributes:
        fixed: what is there whatever the batch.
        per_portrait: what each portrait of the batch adds.
    """

    fixed: dict[str, int]
    per_portrait: dict[str, int]

    def parts(self, batch_size: int = 1) -> dict[str, int]:
        """Bytes by cause for a batch of so many portraits, in the order in which they are stacked.

        Raises:
            ValueError: if the batch is empty.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one portrait is needed")
        return {**self.fixed, **{cause: batch_size * each for cause, each in self.per_portrait.items()}}

    def total(self, batch_size: int = 1) -> int:
        """Bytes in all."""
        return sum(self.parts(batch_size).values())


def sd15_on_meta(tokenizer_of: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """Stable Diffusion 1.5 with an adapter on it, all of it shapes without numbers: it takes next to no memory.

    Args:
        tokenizer_of: any tokenizer will do, nothing is read.
        dtype: of the frozen weights, as in :func:`spf_lite.models.backbone.load`; the adapter and CLIP have 32 bits.
    """
    with torch.device("meta"):
        backbone = random_sd15(tokenizer_of)
    for module in (backbone.pipe.unet, backbone.pipe.vae, backbone.pipe.text_encoder):
        torch.nn.Module.to(module, dtype)
    backbone.trainable = Lora(backbone.pipe.unet, RANK, seed=0)
    return backbone


def step_memory(
    backbone: Backbone, variant: str = "dual path", pixels: int = 512, compute: torch.dtype | None = None
) -> StepMemory:
    """Count the memory of one training step.

    Args:
        backbone: on the meta device, with an adapter as its trainable, as :func:`sd15_on_meta` makes it.
        variant: one of :data:`VARIANTS`. Enhancement is counted for every portrait, though it trusts only the lower
            seven tenths of the timesteps.
        pixels: side of the portraits.
        compute: what autocast has layers compute in (``mixed_precision`` of the trainer); None: 32 bits.

    Raises:
        ValueError: for another variant, a side that the UNet cannot halve often enough, or a backbone that is not on
            the meta device.
        AttentionError: if no layer of a UNet has the size whose attention is recorded.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: expected one of {', '.join(VARIANTS)}")
    unet, factor = backbone.pipe.unet, backbone.pipe.vae_scale_factor
    multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
    if pixels < multiple or pixels % multiple:
        raise ValueError(f"pixels={pixels}: expected a multiple of {multiple}")
    if unet.device.type != "meta" or backbone.trainable is None:
        raise ValueError("expected a backbone on the meta device with a trainable, as sd15_on_meta makes it")
    side = pixels // factor
    # What does not grow with the batch are copies of weights: autocast makes them anew, and backward wants them.
    plain, copies = _growth(backbone, _plain, side, compute)
    per_portrait = {"activations": plain}
    if variant != "plain LoRA":
        both, copies = _growth(backbone, _dual, side, compute)
        per_portrait["comparing the paths"] = both - plain
    if variant == "dual path, enhancement":
        per_portrait["enhancement"], more = _growth(backbone, _enhancement, side, compute)
        copies += more
    fixed = _fixed(backbone, variant)
    if compute is not None:
        fixed["16-bit copies of weights"] = copies
    return StepMemory(fixed, per_portrait)


def _growth(
    backbone: Backbone, run: Callable[[Backbone, int, int], Tensor], side: int, compute: torch.dtype | None
) -> tuple[int, int]:
    """Bytes kept for each portrait, and for all together."""
    with _Cheap(compute):
        one, two = (_saved(backbone, partial(run, backbone, size, side)) for size in (1, 2))
    return two - one, 2 * one - two


def _fixed(backbone: Backbone, variant: str) -> dict[str, int]:
    pipe, trainable = backbone.pipe, backbone.trainable
    assert trainable is not None
    learned = _bytes(trainable.parameters)
    parts = {"UNet": _bytes(pipe.unet.parameters()) - learned}
    if variant == "two models":
        parts["second UNet"] = parts["UNet"]
    parts["text encoder, autoencoder"] = _bytes([*pipe.text_encoder.parameters(), *pipe.vae.parameters()])
    if variant != "plain LoRA":
        parts["CLIP"] = _bytes(backbone.clip.model.parameters())
    if variant == "dual path, enhancement" and backbone.preview is not None:
        parts["CLIP"] += _bytes(backbone.preview.parameters())
    parts["adapter, gradient, AdamW"] = 4 * learned  # itself, its gradient, and two running means
    return parts


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _plain(backbone: Backbone, size: int, side: int) -> Tensor:
    batch = random_batch(backbone, size, side=side)
    return naive_step(backbone, batch, torch.zeros_like(batch.latents), _timesteps(batch)).terms["denoise"].mean()


def _dual(backbone: Backbone, size: int, side: int) -> Tensor:
    batch = random_batch(backbone, size, side=side)
    with dual_path_step(backbone, batch, torch.zeros_like(batch.latents), _timesteps(batch), DUAL) as step:
        return torch.stack([term.mean() for term in step.terms.values()]).sum()


def _enhancement(backbone: Backbone, size: int, side: int) -> Tensor:
    """From the response to what CLIP makes of the picture; of the loss itself no byte worth counting is left."""
    batch = random_batch(backbone, size, side=side)
    response = torch.empty_like(batch.latents, requires_grad=True)
    latents = predicted_latents(backbone.pipe.scheduler, response, batch.latents, _timesteps(batch))
    return backbone.clip.image_features(backbone.decode_preview(latents).float().clamp(-0.2, 1.2))


def _timesteps(batch: Batch) -> Tensor:
    return torch.zeros(len(batch), dtype=torch.long, device=batch.latents.device)


def _saved(backbone: Backbone, run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the way back, without the weights, which are there anyway."""
    pipe = backbone.pipe
    modules: list[nn.Module] = [pipe.unet, pipe.vae, backbone.clip.model]
    if backbone.preview is not None:
        modules.append(backbone.preview)
    weights = {_storage(parameter) for module in modules for parameter in module.parameters()}
    with saved_for_backward() as kept:
        run()
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)


@contextmanager
def saved_for_backward() -> Iterator[dict[int, Tensor]]:
    """Gives a dictionary that fills with one tensor for each stretch of memory that autograd keeps."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _Cheap(TorchFunctionMode):
    """Has meta tensors treated as a graphics card treats real ones: fused attention, and autocast if asked for."""

    def __init__(self, dtype: torch.dtype | None, high: Collection[Any] = _HIGH) -> None:
        super().__init__()
        self.dtype, self.high = dtype, high

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype is not None and func in _LOW:
            args, kwargs = _cast((args, kwargs), self.dtype)
        elif self.dtype is not None and func in self.high:
            args, kwargs = _cast((args, kwargs), torch.float32)
        return _fused_attention(*args, **kwargs) if func is F.scaled_dot_product_attention else func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(each, dtype) for each in value)
    return {name: _cast(each, dtype) for name, each in value.items()} if isinstance(value, dict) else value


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """On "meta", PyTorch takes the plain way, which keeps every weight of every place; no device does so today."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
