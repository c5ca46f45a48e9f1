"""LoRA files as diffusers' pipelines write and read them, as peft does, and in kohya's naming."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spf_lite.models.errors import BackboneError

#: Name of an adapter's file in the folder that diffusers writes.
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
#: Names of peft's files: the factors, and what is to be known of them, such as their scale.
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Names of the file that makes a folder an adapter, the usual one first.
ADAPTER_FILES = (ADAPTER_FILE, PEFT_FILE)
#: What peft puts before the name of each layer.
PEFT_PREFIX = "base_model.model."
#: What kohya's naming puts before the name of each layer, whose dots are underscores.
KOHYA_PREFIXES = ("lora_unet_", "lora_transformer_")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
_KOHYA_ENDS = {"lora_down.weight": DOWN, "lora_up.weight": UP}


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
        written.append(with_sorted_metadata(save(tensors, metadata={"format": "pt", **metadata})))

    pipeline.save_lora_weights(Path(), **{argument: dict(layers)}, save_function=keep)
    (content,) = written
    return {ADAPTER_FILE: content}


def with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file whose metadata are in order: its writer shuffles them, and equal runs shall give equal files.

    Args:
        content: of the file: eight bytes with the length of the header, the header as JSON, and the tensors.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[start:]


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
    tensors = {PEFT_PREFIX + key: value.contiguous() for key, value in layers.items()}
    return {
        PEFT_CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        PEFT_FILE: with_sorted_metadata(save(tensors, metadata={"format": "pt", **metadata})),
    }


def read_peft_file(file: Path) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    """A LoRA file of peft, and the options in ``adapter_config.json`` beside it.

    Returns:
        tensors without peft's prefix, no alphas, and options. They are empty for a file whose names have no prefix:
        then the options are those of another file.

    Raises:
        BackboneError: if the names have peft's prefix, and the options with the scale are missing or unreadable.
    """
    config, tensors = file.parent / PEFT_CONFIG, load_file(file)
    if not any(key.startswith(PEFT_PREFIX) for key in tensors):
        return tensors, {}, {}
    if not config.is_file():
        raise BackboneError(
            f"the adapter {file} is a checkpoint of peft, whose scale stands in {PEFT_CONFIG} beside it: copy that "
            "file, too"
        )
    try:
        options = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{config} cannot be read: {error}") from error
    if (kind := options.get("peft_type")) != "LORA":
        raise BackboneError(f"the adapter {file} is of the kind {kind}, supported: LORA")
    return {key.removeprefix(PEFT_PREFIX): value for key, value in tensors.items()}, {}, options


def read_kohya_file(file: Path, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    """A LoRA file in kohya's naming, with the network's own names of its layers.

    Args:
        file: ``.safetensors``.
        network: that the adapter is for.

    Returns:
        tensors in peft's naming, alphas by layer, and no options. Keys without a layer keep their names.
    """
    layers = {name.replace(".", "_"): name for name, _ in network.named_modules()}
    state: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, value in load_file(file).items():
        module, _, end = key.partition(".")
        prefix = next((one for one in KOHYA_PREFIXES if module.startswith(one)), "")
        layer = layers.get(module.removeprefix(prefix)) if prefix else None
        if layer is not None and end == "alpha":
            alphas[layer] = float(value)
        elif layer is not None and end in _KOHYA_ENDS:
            state[layer + _KOHYA_ENDS[end]] = value
        else:
            state[key] = value
    return state, alphas, {}


def layer_of(key: str) -> str:
    """The layer of a key in peft's naming."""
    return key.removesuffix(DOWN).removesuffix(UP)
