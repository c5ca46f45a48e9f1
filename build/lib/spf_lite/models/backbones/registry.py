"""Which class a model is of: by its ``model_index.json``, its pipeline, or its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.backbones.pixart import PixArtSigma
from spf_lite.models.backbones.sd3 import StableDiffusion3
from spf_lite.models.backbones.sdxl import StableDiffusionXL
from spf_lite.models.backbones.unet import StableDiffusion
from spf_lite.models.errors import BackboneError

#: The supported classes. The last one takes what is of no other class, and says what of it is not supported.
ARCHITECTURES: tuple[Architecture, ...] = (
    StableDiffusionXL(),
    StableDiffusion3(),
    PixArtSigma(),
    StableDiffusion(),
)


def architecture_named(index: Mapping[str, Any]) -> Architecture:
    """The class of a pipeline on disk or on the hub.

    Args:
        index: its ``model_index.json``.
    """
    name = str(index.get("_class_name"))
    return next((found for found in ARCHITECTURES if found.prefix and name.startswith(found.prefix)), ARCHITECTURES[-1])


def architecture_of(pipe: DiffusionPipeline) -> Architecture:
    """The class of a loaded pipeline."""
    return next((found for found in ARCHITECTURES if isinstance(pipe, found.pipeline)), ARCHITECTURES[-1])


def architecture_of_network(network: nn.Module) -> Architecture:
    """The class of a network.

    Raises:
        BackboneError: if it is of none.
    """
    whole = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    for found in ARCHITECTURES:
        if found.claims(whole):
            return found
    known = ", ".join(found.title for found in ARCHITECTURES)
    raise BackboneError(f"a network of the class {type(whole).__name__} is not supported: expected that of {known}")
