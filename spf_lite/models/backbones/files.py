"""LoRA files as diffusers' pipelines write and read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from safetensors.torch import save
from torch import Tensor

#: Name of an adapter's file in the folder that diffusers writes.
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def diffusers_lora_bytes(
    pipeline: type[DiffusionPipeline], argument: str, layers: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, bytes]:
    """A LoRA file as a pipeline writes it, as bytes: its own writer would leave half a file when it is interrupted.

    Args:
        pipeline: whose ``save_lora_weights`` writes.
        argument: of this method, which takes the layers of the network.
        layers: both factors of each layer, ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``.
        metadata: texts that stand in the file besides.

    Returns:
        the file's name and content.
    """
    written: list[bytes] = []

    def keep(tensors: dict[str, Tensor], path: str) -> None:
        written.append(save(tensors, metadata={"format": "pt", **metadata}))

    pipeline.save_lora_weights(Path(), **{argument: convert_state_dict_to_diffusers(dict(layers))}, save_function=keep)
    (content,) = written
    return {ADAPTER_FILE: content}


def split_alphas(part: str, alphas: Mapping[str, float] | None) -> dict[str, float]:
    """kohya's alphas by the network's layer.

    Args:
        part: name of the network in the pipeline, the prefix of its keys.
        alphas: as diffusers' reader gives them.
    """
    own = {key.removeprefix(f"{part}.").removesuffix(".alpha"): value for key, value in (alphas or {}).items()}
    return {layer_of(key): float(value) for key, value in convert_unet_state_dict_to_peft(own).items()}


def layer_of(key: str) -> str:
    """The layer of a key in peft's naming."""
    return key.removesuffix(DOWN).removesuffix(UP)
