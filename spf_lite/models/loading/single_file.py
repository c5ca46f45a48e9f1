"""Single-file checkpoints: what can be known of a file before its weights are converted.

diffusers converts the names of the weights (``from_single_file``). It reads the configuration of each part from a
folder or from the hub. Without one it guesses the repository by the shapes in the file.

What the network predicts stands in the configuration alone. The shapes of Stable Diffusion 2 are the same for noise, at
512 pixels, and for velocity, at 768. diffusers guesses velocity: name the configuration of a model that predicts noise.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.errors import BackboneError
from spf_lite.models.source import PICKLE, SAFETENSORS, Source

#: Parts of the names in a LoRA file, of every naming.
_LORA = (".lora_", "lora_unet_", "lora_te")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a single file, by name, on the CPU. A ``.safetensors`` file is mapped, not copied.

    Raises:
        BackboneError: if there is no such file, it is damaged, it cannot be read safely, or it is a LoRA.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"no model in {path}: there is no such file")
    tensors = _unpickled(path) if path.suffix == PICKLE else _safetensors(path)
    if not tensors:
        raise BackboneError(f"the model {path} is empty")
    if name := next((key for key in tensors if any(mark in key for mark in _LORA)), None):
        raise BackboneError(f"{path} is a LoRA ({name}), not a model: give it as an adapter (--adapter)")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"the model {path} cannot be read: {error}") from error


def _unpickled(path: Path) -> dict[str, Tensor]:
    """What PyTorch's restricted unpickler reads: tensors, and nothing that could run code."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"the model {path} holds more than tensors, and reading that could run foreign code: take the "
            f"{SAFETENSORS} file of the model, or convert it where you trust it ({str(error).splitlines()[0]})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise BackboneError(f"the model {path} cannot be read: {error}") from error
    while isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise BackboneError(f"the model {path} holds a {type(content).__name__}, expected named tensors")
    return content


def with_config(source: Source) -> Source:
    """A single file with the place of its configuration: the one that is given, or the one that diffusers guesses.

    Raises:
        BackboneError: if the file cannot be read.
    """
    tensors = read_checkpoint(source.location)
    if source.config is not None:
        return source
    return replace(source, config=str(fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]))


def check_convertible(architecture: Architecture) -> None:
    """Check that diffusers reads models of a class from single files.

    Raises:
        BackboneError: if it does not.
    """
    if not hasattr(architecture.pipeline, "from_single_file"):
        raise BackboneError(
            f"diffusers reads no single files of {architecture.title}: take the model's folder or hub id"
        )


def check_complete(source: Source, pipe: DiffusionPipeline, architecture: Architecture) -> None:
    """Check that a single file held every weight of its parts. diffusers leaves what it lacked on the "meta" device.

    Raises:
        BackboneError: if one is missing.
    """
    for part, module in architecture.modules(pipe).items():
        if callable(tie := getattr(module, "tie_weights", None)):  # T5's tokens have two names, and a file may hold one
            tie()
        tensors = (*module.named_parameters(), *module.named_buffers())
        if missing := [name for name, tensor in tensors if tensor.is_meta]:
            raise BackboneError(
                f"{source.location} lacks {len(missing)} weights of the {part} that {source.config} describes "
                f"({missing[0]}, ...): it is of another model, or incomplete"
            )
