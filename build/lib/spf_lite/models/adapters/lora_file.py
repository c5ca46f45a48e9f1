"""A LoRA file: every naming that is in use, and every key accounted for.

diffusers loads the keys that it knows and passes over the rest, so a file in a foreign naming gives pictures of the
base model without an error. Here a key is loaded, or named as left out, or an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spf_lite.models.backbones.architecture import LoraFile
from spf_lite.models.backbones.files import (
    ADAPTER_FILE,
    ADAPTER_FILES,
    DOWN,
    KOHYA_PREFIXES,
    PEFT_PREFIX,
    UP,
    layer_of,
    read_kohya_file,
    read_peft_file,
)
from spf_lite.models.backbones.registry import architecture_of_network
from spf_lite.models.errors import BackboneError

__all__ = ["ADAPTER_FILE", "ADAPTER_FILES", "Factors", "find_adapter", "named", "read_lora"]

#: Beginnings of keys that belong to text encoders, in the naming of diffusers and of kohya.
_TEXT = ("text_encoder.", "text_encoder_2.", "text_encoder_3.", "lora_te")
#: Other kinds of adapters, by a part of their keys.
_OTHER_KINDS = {"dora_scale": "DoRA", "lora_magnitude": "DoRA", "hada_": "LoHa", "lokr_": "LoKr"}
logger = logging.getLogger(__name__)


class Factors(NamedTuple):
    """The two factors of one layer: its change is ``up @ down``, any scale of the file multiplied into ``up``.

    Attributes:
        down: A, (rank, inputs), for a convolution with the kernel's two sides behind.
        up: B, (outputs, rank), for a convolution with two sides of 1 behind.
    """

    down: Tensor
    up: Tensor


def read_lora(path: str | Path, network: ModelMixin) -> dict[str, Factors]:
    """Read a LoRA file and hold every key of it against a network.

    Keys of text encoders are left out, because the text encoder serves the reference path too; they are named in one
    warning of this module's logger.

    Args:
        path: a ``.safetensors`` file, or a folder with one of :data:`ADAPTER_FILES`.
        network: that the adapter is for; it is not changed.

    Returns:
        both factors by the layer's name, on the CPU.

    Raises:
        BackboneError: if there is no such file, it is incomplete, not in the safetensors format or of another kind than
            LoRA, or a key or shape of it has no counterpart in the network.
    """
    file = find_adapter(path)
    part = architecture_of_network(network).part
    state, alphas, metadata = _converted(file, network)
    text = sorted(key for key in state if key.startswith(_TEXT))
    own = {key: value for key, value in state.items() if not key.startswith(_TEXT)}
    layers = {name: module for name, module in network.named_modules() if not _inside_adapter(name)}
    # save_lora_adapter of a network writes names without the pipeline's prefix, "unet." or "transformer.".
    named = convert_unet_state_dict_to_peft({key.removeprefix(f"{part}."): value for key, value in own.items()})
    unknown = [key for key in named if not key.endswith((DOWN, UP)) or layer_of(key) not in layers]
    if unknown or not named:
        raise BackboneError(f"the adapter {file} does not fit this model: {_reason(unknown, text)}")
    found = {}
    for name in sorted({layer_of(key) for key in named}):
        down, up = named.get(name + DOWN), named.get(name + UP)
        if down is None or up is None:
            raise BackboneError(f"the adapter {file} is incomplete: {name} has one of its two factors only")
        _check_shape(file, name, layers[name], down, up)
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise BackboneError(f"the adapter {file} holds values that are not finite ({name})")
        scale = _scale(name, len(down), alphas, metadata)
        found[name] = Factors(down, up if scale == 1 else up.float() * scale)
    if text:
        logger.warning("%s: left out %d keys of text encoders: %s", file, len(text), ", ".join(text))
    return found


def named(factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """Both factors of each layer as peft names them: ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``."""
    return {name + end: value for name, pair in factors.items() for end, value in zip((DOWN, UP), pair, strict=True)}


def find_adapter(path: str | Path) -> Path:
    """The file of an adapter, given itself or its folder.

    Raises:
        BackboneError: if there is none, or it is not in the safetensors format.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (found := next((path / name for name in ADAPTER_FILES if (path / name).is_file()), None)):
        return found
    if path.is_dir():
        others = ", ".join(sorted(found.name for found in path.glob("*.safetensors")))
        hint = f" (it holds {others}: name the file)" if others else ""
        raise BackboneError(f"no adapter in {path}: there is no {ADAPTER_FILE}{hint}")
    if not path.is_file():
        missing = f"there is no {ADAPTER_FILE}" if path.suffix != ".safetensors" else "there is no such file"
        raise BackboneError(f"no adapter in {path}: {missing}")
    if path.suffix != ".safetensors":
        raise BackboneError(
            f"the adapter {path} is no .safetensors file: other formats can run code when they are read"
        )
    return path


def _converted(file: Path, network: ModelMixin) -> LoraFile:
    """A file's tensors in diffusers' naming, kohya's alphas by layer, and peft's options of the network's adapter."""
    architecture = architecture_of_network(network)
    try:
        with safe_open(file, framework="pt") as content:
            keys = list(content.keys())
        _check_kind(file, keys)
        if any(key.startswith(PEFT_PREFIX) for key in keys):
            state, alphas, metadata = read_peft_file(file)
        elif architecture.part != "unet" and any(key.startswith(KOHYA_PREFIXES) for key in keys):
            state, alphas, metadata = read_kohya_file(file, network)  # diffusers converts kohya's names of UNets alone
        else:
            state, alphas, metadata = architecture.read_lora_file(file, network)
    except BackboneError:
        raise
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"the adapter {file} cannot be read: {error}") from error
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BackboneError(f"the adapter {file} has keys in no known naming: {error}") from error
    prefix = f"{architecture.part}."
    return state, alphas, {key.removeprefix(prefix): value for key, value in metadata.items()}


def _check_kind(file: Path, keys: list[str]) -> None:
    if not keys:
        raise BackboneError(f"the adapter {file} is empty")
    for mark, kind in _OTHER_KINDS.items():
        if found := next((key for key in keys if mark in key), None):
            raise BackboneError(f"the adapter {file} is a {kind} ({found}), supported: LoRA")


def _reason(unknown: list[str], text: list[str]) -> str:
    """Why nothing, or not all of a file, has its layer in the network."""
    if not unknown:
        return f"it has keys of text encoders only ({text[0]}, ...)"
    shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    hint = "it was trained on another model, or its naming is none of diffusers', peft's and kohya's"
    return f"{len(unknown)} of its keys have no layer in the network ({shown}); {hint}"


def _scale(layer: str, rank: int, alphas: dict[str, float], options: dict[str, Any]) -> float:
    """What a layer's product of factors is multiplied by: alpha / rank, or 1 where the file has no alpha."""
    alpha = alphas.get(layer, options.get("lora_alpha"))
    if alpha is None:
        return 1.0
    patterns = options.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), alpha)
    return float(alpha) / (rank**0.5 if options.get("use_rslora") else rank)


def _inside_adapter(name: str) -> bool:
    return ".base_layer" in name or ".lora_" in name


def _check_shape(file: Path, name: str, layer: nn.Module, down: Tensor, up: Tensor) -> None:
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    if not isinstance(base, nn.Linear | nn.Conv2d):
        raise BackboneError(f"the adapter {file} does not fit this model: {name} is a {type(base).__name__}")
    outputs, *inputs = base.weight.shape
    rank = down.shape[0] if down.ndim else 0
    wanted = (rank, *inputs), (outputs, rank, *(1 for _ in inputs[1:]))
    if rank < 1 or (tuple(down.shape), tuple(up.shape)) != wanted:
        raise BackboneError(
            f"the adapter {file} does not fit this model: size mismatch in {name}, whose weight is "
            f"{tuple(base.weight.shape)} and whose factors are {tuple(down.shape)} and {tuple(up.shape)}"
        )
