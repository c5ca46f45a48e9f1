"""Low-rank adapters on a network: put on for training, loaded from a file, switched off, which is the reference path.

In the book: :doc:`/04-lora`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Protocol

import torch
from diffusers import DiffusionPipeline, ModelMixin
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict

from spf_lite.choices import LAYERS
from spf_lite.models.adapters.lora_file import ADAPTER_FILE, Factors, named, read_lora
from spf_lite.models.adapters.peft_layers import put_on, set_strength, switch, take_off
from spf_lite.models.backbones.registry import architecture_of, architecture_of_network
from spf_lite.models.backbones.unet import CROSS_ATTENTION
from spf_lite.models.errors import BackboneError
from spf_lite.models.loading.compatibility import check_network

__all__ = [
    "ADAPTER",
    "ADAPTER_FILE",
    "CROSS_ATTENTION",
    "LOADED",
    "adapters_off",
    "add_lora",
    "check_no_adapter",
    "learned_parameters",
    "load_adapter",
    "load_factors",
]

#: Names of the adapter in training, and of the one that was loaded.
ADAPTER, LOADED = "default", "loaded"


class _HasPipe(Protocol):
    """A :class:`spf_lite.models.backbone.Backbone`, which imports this module."""

    pipe: DiffusionPipeline


def check_no_adapter(network: ModelMixin) -> None:
    """Check that nothing has been put on a network.

    Raises:
        BackboneError: if it has an adapter: of two, one would be part of the reference.
    """
    if getattr(network, "peft_config", None):
        raise BackboneError("the network already has an adapter: load the backbone anew, or delete the adapter first")


def add_lora(
    network: ModelMixin, rank: int, seed: int = 0, layers: str = "cross-attention"
) -> list[torch.nn.Parameter]:
    r"""Put a LoRA adapter on every projection that is trained: :math:`W x + B A x` (Hu et al. 2021, equation 3).

    A (rank, inputs) is sampled from a normal distribution, without touching the global random state. B (outputs, rank)
    starts at zero, so that the adapted network begins as the reference. The product is not scaled (alpha is the rank),
    because an exported adapter does not say by how much it would have to be. For a convolution, A is a convolution with
    the kernel of the layer and B one with a kernel of 1.

    Args:
        network: gets the adapter.
        rank: of A and B.
        seed: of A.
        layers: one of :data:`spf_lite.choices.LAYERS`.

    Returns:
        A and B of each layer, float32.

    Raises:
        ValueError: for other layers.
        BackboneError: if the network is of an unsupported kind, or has an adapter already.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers={layers!r}: expected one of {', '.join(LAYERS)}")
    check_network(network)
    check_no_adapter(network)
    names = list(architecture_of_network(network).trained_layers(layers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        put_on(
            network,
            LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights="gaussian"),
            ADAPTER,
        )
    return learned_parameters(network)


def learned_parameters(network: ModelMixin) -> list[torch.nn.Parameter]:
    """Parameters of a network that are trained, converted to float32 in place.

    Frozen weights may have 16 bits, but the small steps of an optimiser would be rounded away there.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def load_adapter(model: _HasPipe | DiffusionPipeline, path: str | Path, strength: float = 1.0) -> None:
    """Load a LoRA adapter into the network, in the place of one that was loaded before.

    Args:
        model: a backbone, or its pipeline.
        path: a ``.safetensors`` file in the naming of diffusers, peft or kohya, or a folder with
            ``pytorch_lora_weights.safetensors``. Keys of text encoders are left out, with one warning
            (:func:`spf_lite.models.adapters.lora_file.read_lora`).
        strength: factor of the change; 0 is the model without the adapter, to the last bit.

    Raises:
        BackboneError: if there is no such file, it cannot be read, it is of another kind than LoRA, or not every key of
            it has its layer in this network; or if the network is in training. The model is then as it was.
        ValueError: if the strength is not finite.
    """
    if not isfinite(strength):
        raise ValueError(f"strength={strength}: expected a finite number")
    load_factors(model, lambda network: read_lora(path, network), strength)


def load_factors(
    model: _HasPipe | DiffusionPipeline,
    read: Callable[[ModelMixin], Mapping[str, Factors]],
    strength: float = 1.0,
) -> None:
    """Put a LoRA on the network, in the place of one that was loaded before.

    Args:
        model: a backbone, or its pipeline.
        read: gives both factors by the layer's name, for the network as it is.
        strength: factor of the change.

    Raises:
        BackboneError: if the network is in training.
    """
    pipe = model if isinstance(model, DiffusionPipeline) else model.pipe
    network = architecture_of(pipe).network(pipe)
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    if ADAPTER in getattr(network, "peft_config", {}):
        raise BackboneError("the network carries the adapter of a training: load the backbone anew")
    factors = read(network)
    if getattr(network, "peft_config", None):
        take_off(network)
    ranks = {name: len(pair.down) for name, pair in factors.items()}
    rank = max(ranks.values())
    put_on(
        network,
        LoraConfig(
            r=rank, lora_alpha=rank, rank_pattern=ranks, alpha_pattern=dict(ranks), target_modules=list(factors)
        ),
        LOADED,
    )
    set_peft_model_state_dict(network, named(factors), adapter_name=LOADED)
    if strength != 1.0:
        set_strength(network, LOADED, float(strength))


@contextmanager
def adapters_off(network: ModelMixin) -> Iterator[ModelMixin]:
    """The reference path: the same network with its adapters switched off.

    They are on again at exit, also after an exception. Without adapters it gives the network as it is.
    """
    if not getattr(network, "peft_config", None):
        yield network
        return
    switch(network, on=False)
    try:
        yield network
    finally:
        switch(network, on=True)
