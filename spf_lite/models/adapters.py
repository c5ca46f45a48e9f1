"""The thin matrices that are trained: put on a UNet, loaded from a file, and switched off, which is the reference path.

In the book: :doc:`/04-lora`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig

from spf_lite.models.errors import BackboneError

#: The projections of cross-attention ("attn2" in diffusers' transformer blocks) that an adapter is put on.
CROSS_ATTENTION = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
ADAPTER = "default"
#: What diffusers calls the file of an adapter.
ADAPTER_FILE = "pytorch_lora_weights.safetensors"


def check_cross_attention(unet: UNet2DConditionModel) -> None:
    """Raise :class:`BackboneError` unless the UNet has cross-attention layers."""
    if not any(name.endswith("attn2.processor") for name in unet.attn_processors):
        raise BackboneError(
            "the UNet has no cross-attention layers: no word reaches its pixels, and nothing can be tuned"
        )


def add_lora(unet: UNet2DConditionModel, rank: int, seed: int = 0) -> list[torch.nn.Parameter]:
    """Put a LoRA adapter on every cross-attention projection (Hu et al. 2021); returns its parameters.

    The second factor starts at zero, so that the adapted UNet begins as the reference. The first is drawn from ``seed``
    without touching the global random state. Their product is not scaled (alpha is the rank), because an exported
    adapter does not say by how much it would have to be.
    """
    check_cross_attention(unet)
    if getattr(unet, "peft_config", None):
        raise BackboneError("the UNet already has an adapter: load the backbone anew, or delete the adapter first")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=list(CROSS_ATTENTION), init_lora_weights="gaussian"),
            adapter_name=ADAPTER,
        )
    return learned_parameters(unet)


def learned_parameters(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """What is trained on a UNet, taken to 32 bits: frozen weights may do with 16, but small steps are lost there."""
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def load_adapter(pipe: StableDiffusionPipeline, folder: str | Path) -> None:
    """Load an adapter from a local folder, as any diffusers tool writes it.

    Raises:
        BackboneError: if there is none (diffusers would ask the hub for one of that name), or if it was trained on
            another model.
    """
    if not (Path(folder) / ADAPTER_FILE).is_file():
        raise BackboneError(f"no adapter in {folder}: there is no {ADAPTER_FILE}")
    try:
        pipe.load_lora_weights(str(folder), weight_name=ADAPTER_FILE)
    except (RuntimeError, ValueError, OSError) as error:
        raise BackboneError(f"the adapter in {folder} does not fit this model: {error}") from error


@contextmanager
def adapters_off(unet: UNet2DConditionModel) -> Iterator[UNet2DConditionModel]:
    """The reference path: the same UNet without its adapters, which come back on exit, whatever happens."""
    if not getattr(unet, "peft_config", None):
        yield unet
        return
    unet.disable_adapters()
    try:
        yield unet
    finally:
        unet.enable_adapters()
