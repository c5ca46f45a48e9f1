"""Which models the method can work with. Everything else is refused before its weights are read.

Each class of models (:mod:`spf_lite.models.backbones`) says what of it is supported. A model that differs would train
without an error and learn something else, or fail an hour later.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline, ModelMixin

from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.backbones.checks import check_not_compiled, processor_faults
from spf_lite.models.backbones.registry import architecture_named, architecture_of, architecture_of_network
from spf_lite.models.backbones.unet import PLAIN_PROCESSORS, check_cross_attention
from spf_lite.models.errors import BackboneError
from spf_lite.models.source import Source

__all__ = [
    "DTYPES",
    "PLAIN_PROCESSORS",
    "check_cross_attention",
    "check_network",
    "check_not_compiled",
    "check_pipeline",
    "check_precision",
    "check_processors",
    "check_source",
]

#: Types of the frozen weights.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_source(source: Source | str) -> Architecture:
    """Check a pipeline by its configuration files, before its weights are read or downloaded.

    Args:
        source: where it is stored; a text is a folder or hub id.

    Returns:
        the class that it is of.

    Raises:
        BackboneError: if it is of an unsupported kind.
        OSError: if a configuration file is missing.
    """
    source = Source(source) if isinstance(source, str) else source
    index = source.index()
    architecture = architecture_named(index)
    architecture.check_source(source, index)
    return architecture


def check_pipeline(pipe: DiffusionPipeline) -> None:
    """Check a loaded pipeline: all that :func:`check_source` checks, its text encoders and its attention processors.

    Raises:
        BackboneError: if it is of an unsupported kind.
    """
    architecture_of(pipe).check_pipeline(pipe)


def check_network(network: ModelMixin) -> None:
    """Check that a network can be tuned and recorded.

    Raises:
        BackboneError: if it is compiled, no text reaches it, it takes other conditions than its class, or has foreign
            attention processors.
    """
    check_not_compiled(network)  # first: what compiles it also hides its class
    architecture_of_network(network).check_network(network)


def check_processors(processors: Mapping[str, object]) -> None:
    """Check that a UNet's attention is computed as diffusers computes it.

    Args:
        processors: of each attention layer, by name, as ``unet.attn_processors`` gives them.

    Raises:
        BackboneError: if one is of another class.
    """
    processor_faults(processors, PLAIN_PROCESSORS)


def check_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Check that a device computes in a type, for frozen weights as for mixed precision.

    Raises:
        BackboneError: for float16 on a processor (PyTorch has no gradient scaling there, and few operations), or a type
            that is none of :data:`DTYPES`.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"weights of {dtype} are not supported: expected one of {', '.join(map(str, DTYPES))}")
    if device.type == "cpu" and dtype == torch.float16:
        raise BackboneError("float16 is a precision of GPUs, and the device is a CPU: choose bfloat16 or float32")
