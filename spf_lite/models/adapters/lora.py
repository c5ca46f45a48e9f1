"""Low-rank adapters on a UNet: put on for training, loaded from a file, and switched off, which is the reference path.

In the book: :doc:`/04-lora`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Protocol

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict

from spf_lite.models.adapters.lora_file import ADAPTER_FILE, Factors, named, read_lora
from spf_lite.models.compatibility import check_unet
from spf_lite.models.errors import BackboneError

__all__ = [
    "ADAPTER",
    "ADAPTER_FILE",
    "CROSS_ATTENTION",
    "LORA_LAYERS",
    "LOADED",
    "TEXT_PROJECTIONS",
    "adapters_off",
    "add_lora",
    "check_no_adapter",
    "learned_parameters",
    "load_adapter",
    "load_factors",
]

#: The projections of cross-attention ("attn2" in diffusers' transformer blocks) that an adapter is put on.
CROSS_ATTENTION = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
#: The layers of each of :data:`spf_lite.config.LAYERS`, by the ends of their names.
LORA_LAYERS = {"cross-attention": CROSS_ATTENTION, "resnets": (*CROSS_ATTENTION, "conv1", "conv2")}
#: The projections of cross-attention that read the text.
TEXT_PROJECTIONS = ("attn2.to_k", "attn2.to_v")
#: Names of the adapter in training, and of the one that was loaded.
ADAPTER, LOADED = "default", "loaded"


class _HasPipe(Protocol):
    """A :class:`spf_lite.models.backbone.Backbone`, which imports this module."""

    pipe: StableDiffusionPipeline


def check_no_adapter(unet: UNet2DConditionModel) -> None:
    """Check that nothing has been put on a UNet.

    Raises:
        BackboneError: if it has an adapter: of two, one would be part of the reference.
    """
    if getattr(unet, "peft_config", None):
        raise BackboneError("the UNet already has an adapter: load the backbone anew, or delete the adapter first")


def add_lora(
    unet: UNet2DConditionModel, rank: int, seed: int = 0, layers: str = "cross-attention"
) -> list[torch.nn.Parameter]:
    r"""Put a LoRA adapter on every cross-attention projection: :math:`W x + B A x` (Hu et al. 2021, equation 3).

    A (rank, inputs) is sampled from a normal distribution, without touching the global random state. B (outputs, rank)
    starts at zero, so that the adapted UNet begins as the reference. The product is not scaled (alpha is the rank),
    because an exported adapter does not say by how much it would have to be. For a convolution, A is a convolution with
    the kernel of the layer and B one with a kernel of 1.

    Args:
        unet: gets the adapter.
        rank: of A and B.
        seed: of A.
        layers: one of :data:`spf_lite.config.LAYERS`.

    Returns:
        A and B of each layer, float32.

    Raises:
        ValueError: for other layers.
        BackboneError: if the UNet is of an unsupported kind, or has an adapter already.
    """
    if layers not in LORA_LAYERS:
        raise ValueError(f"layers={layers!r}: expected one of {', '.join(LORA_LAYERS)}")
    check_unet(unet)
    check_no_adapter(unet)
    names = list(LORA_LAYERS[layers])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights="gaussian"),
            adapter_name=ADAPTER,
        )
    return learned_parameters(unet)


def learned_parameters(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """Parameters of a UNet that are trained, converted to float32 in place.

    Frozen weights may have 16 bits, but the small steps of an optimiser would be rounded away there.
    """
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def load_adapter(model: _HasPipe | StableDiffusionPipeline, path: str | Path, strength: float = 1.0) -> None:
    """Load a LoRA adapter into the UNet, in the place of one that was loaded before.

    Args:
        model: a backbone, or its pipeline.
        path: a ``.safetensors`` file in the naming of diffusers, peft or kohya, or a folder with
            ``pytorch_lora_weights.safetensors``. Keys of text encoders are left out, with one warning
            (:func:`spf_lite.models.adapters.lora_file.read_lora`).
        strength: factor of the change; 0 is the model without the adapter, to the last bit.

    Raises:
        BackboneError: if there is no such file, it cannot be read, it is of another kind than LoRA, or not every key of
            it has its layer in this UNet; or if the UNet is in training. The model is then as it was.
        ValueError: if the strength is not finite.
    """
    if not isfinite(strength):
        raise ValueError(f"strength={strength}: expected a finite number")
    load_factors(model, lambda unet: read_lora(path, unet), strength)


def load_factors(
    model: _HasPipe | StableDiffusionPipeline,
    read: Callable[[UNet2DConditionModel], Mapping[str, Factors]],
    strength: float = 1.0,
) -> None:
    """Put a LoRA on the UNet, in the place of one that was loaded before.

    Args:
        model: a backbone, or its pipeline.
        read: gives both factors by the layer's name, for the UNet as it is.
        strength: factor of the change.

    Raises:
        BackboneError: if the UNet is in training.
    """
    pipe = model if isinstance(model, StableDiffusionPipeline) else model.pipe
    unet = getattr(pipe.unet, "_orig_mod", pipe.unet)  # what torch.compile wraps
    if ADAPTER in getattr(unet, "peft_config", {}):
        raise BackboneError("the UNet carries the adapter of a training: load the backbone anew")
    factors = read(unet)
    if getattr(unet, "peft_config", None):
        unet.unload_lora()
    ranks = {name: len(pair.down) for name, pair in factors.items()}
    rank = max(ranks.values())
    unet.add_adapter(
        LoraConfig(
            r=rank, lora_alpha=rank, rank_pattern=ranks, alpha_pattern=dict(ranks), target_modules=list(factors)
        ),
        adapter_name=LOADED,
    )
    set_peft_model_state_dict(unet, named(factors), adapter_name=LOADED)
    if strength != 1.0:
        unet.set_adapters([LOADED], [float(strength)])


@contextmanager
def adapters_off(unet: UNet2DConditionModel) -> Iterator[UNet2DConditionModel]:
    """The reference path: the same UNet with its adapters switched off.

    They are on again at exit, also after an exception. Without adapters it gives the UNet as it is.
    """
    if not getattr(unet, "peft_config", None):
        yield unet
        return
    unet.disable_adapters()
    try:
        yield unet
    finally:
        unet.enable_adapters()
