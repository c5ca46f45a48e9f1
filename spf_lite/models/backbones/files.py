"""LoRA files as diffusers' pipelines write and read them, and as peft does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save
from torch import Tensor

#: Name of an adapter's file in the folder that diffusers writes.
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
#: Names of peft's files: the factors, and what is to be known of them, such as their scale.
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Names of the file that makes a folder an adapter, the usual one first.
ADAPTER_FILES = (ADAPTER_FILE, PEFT_FILE)
#: What peft puts before the name of each layer.
_PEFT_PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def diffusers_lora_bytes(
    pipeline: type[DiffusionPipeline], argument: str, layers: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, bytes]:
    """A LoRA file as a pipeline writes it, as bytes: its own writer would leave half a file when it is interrupted.

    Args:
        pipeline: whose ``save_lora_weights`` writes.
        argument: of this method, which takes the layers of the network.
        layers: both factors of each layer, in the naming that the pipeline reads.
        metadata: texts that stand in the file besides.

    Returns:
        the file's name and content.
    """
    written: list[bytes] = []

    def keep(tensors: dict[str, Tensor], path: str) -> None:
        written.append(save(tensors, metadata={"format": "pt", **metadata}))

    pipeline.save_lora_weights(Path(), **{argument: dict(layers)}, save_function=keep)
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


def peft_files(layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Files that ``PeftModel.from_pretrained`` loads, by name; the factors last.

    Args:
        layers: both factors of each layer, ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``, of scale 1.
        metadata: texts that stand in the file besides.
    """
    ranks = {layer_of(key): len(value) for key, value in layers.items() if key.endswith(DOWN)}
    most = max(ranks.values())
    other = {layer: rank for layer, rank in ranks.items() if rank != most}
    config = {
        "peft_type": "LORA",
        "r": most,
        "lora_alpha": most,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(ranks),
        "inference_mode": True,
    }
    tensors = {_PEFT_PREFIX + key: value.contiguous() for key, value in layers.items()}
    return {
        PEFT_CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        PEFT_FILE: save(tensors, metadata={"format": "pt", **metadata}),
    }


def read_peft_file(file: Path) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    """A LoRA file of peft, and the options in ``adapter_config.json`` beside it, if it is there.

    Returns:
        tensors without peft's prefix, no alphas, and options.
    """
    config = file.parent / PEFT_CONFIG
    options = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return {key.removeprefix(_PEFT_PREFIX): value for key, value in load_file(file).items()}, {}, options


def layer_of(key: str) -> str:
    """The layer of a key in peft's naming."""
    return key.removesuffix(DOWN).removesuffix(UP)
