"""What is trained: three ways to change cross-attention, of which a LoRA can change ResNet blocks as well.

Each keeps *one* network in memory. The reference path is that network with the change taken back for a moment
(:meth:`Trainable.reference`): an adapter is switched off, or the original cross-attention weights are swapped in.

In the book: :doc:`/04-lora`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from spf_lite.choices import KINDS, LAYERS
from spf_lite.models.adapters.adalora import AdaLora
from spf_lite.models.adapters.base import PeftAdapter, Trainable
from spf_lite.models.adapters.lora import (
    ADAPTER,
    add_lora,
    check_no_adapter,
)
from spf_lite.models.adapters.lora_file import Factors, read_lora
from spf_lite.models.backbones.registry import architecture_of_network
from spf_lite.models.errors import BackboneError
from spf_lite.models.loading.compatibility import check_network


def make_trainable(
    kind: str,
    network: ModelMixin,
    rank: int,
    seed: int,
    steps: int,
    start_from: str | Path | None = None,
    layers: str = "cross-attention",
) -> Trainable:
    """Put one of :data:`spf_lite.choices.KINDS` on a network.

    Args:
        kind: ``lora`` (Hu et al. 2021), ``adalora`` (Zhang et al. 2023) or ``weights`` (SPF-Portrait's own setting).
        network: gets the change.
        rank: of the low-rank factors (for AdaLoRA: in the end, on average; ignored for weights).
        seed: of their start.
        steps: length of the run; AdaLoRA plans its ranks by it.
        start_from: an existing LoRA, file or folder, whose change the run begins with. The reference stays the model
            without it.
        layers: that a LoRA is put on, one of :data:`spf_lite.choices.LAYERS`; the other kinds are for cross-attention.

    Raises:
        ValueError: for another kind, or layers that it is not for.
        BackboneError: if the network is of an unsupported kind or has an adapter already, or the existing LoRA does not
            fit it or this kind of training.
    """
    if kind not in KINDS:
        raise ValueError(f"trainable={kind!r}: expected one of {', '.join(KINDS)}")
    if layers not in LAYERS or (kind != "lora" and layers != "cross-attention"):
        raise ValueError(f"layers={layers!r} with trainable={kind}: expected cross-attention, or for lora also resnets")
    factors = None if start_from is None else _factors_to_start_from(start_from, network, kind, rank, layers)
    trained: Trainable
    if kind == "lora":
        trained = Lora(network, rank, seed, layers)
    elif kind == "adalora":
        trained = AdaLora(network, rank, seed, steps)
    else:
        trained = Weights(network)
    if factors is not None:
        trained.start_from(factors)
    return trained


def _factors_to_start_from(
    path: str | Path, network: ModelMixin, kind: str, rank: int, layers: str
) -> dict[str, Factors]:
    """An existing LoRA, if a kind of training can hold its change. Asked before anything is put on the network."""
    if kind == "adalora":  # ranks are pruned by importances that start with the run
        raise BackboneError(f"adalora cannot start from {path}: train a lora, or the weights")
    factors = read_lora(path, network)
    check_fits(factors, network, rank if kind == "lora" else None, layers, f"cannot start from {path}")
    return factors


def check_fits(
    factors: Mapping[str, Factors], network: ModelMixin, rank: int | None, layers: str, problem: str
) -> None:
    """Check that training can go on from the factors of a LoRA.

    Args:
        factors: by layer.
        network: that is trained.
        rank: of what is trained; None: of any.
        layers: that are trained, one of :data:`spf_lite.choices.LAYERS`.
        problem: what the message of an error begins with.

    Raises:
        BackboneError: if they have a larger rank, or change other layers.
    """
    others = [name for name in factors if not name.endswith(architecture_of_network(network).trained_layers(layers))]
    if others:
        trained = "cross-attention" if layers == "cross-attention" else "cross-attention and ResNet blocks"
        raise BackboneError(
            f"{problem}: it changes {len(others)} layers besides {trained} ({others[0]}), which are not trained here"
        )
    largest = max(len(pair.down) for pair in factors.values())
    if rank is not None and largest > rank:
        raise BackboneError(f"{problem}: its rank is {largest}, and {rank} is trained: set rank={largest}")


class Lora(PeftAdapter):
    """Two low-rank factors beside every layer that is trained (Hu et al. 2021).

    Arguments and errors as in :func:`spf_lite.models.adapters.lora.add_lora`.
    """

    def __init__(self, network: ModelMixin, rank: int, seed: int, layers: str = "cross-attention") -> None:
        self.network, self.rank, self.of_layers = network, rank, layers
        self.parameters = add_lora(network, rank, seed, layers)

    def state(self) -> dict[str, Tensor]:
        return dict(get_peft_model_state_dict(self.network, adapter_name=ADAPTER))

    def restore(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self.network, state, adapter_name=ADAPTER)

    def lora_layers(self) -> dict[str, Tensor]:
        return self.state()

    def start_from(self, factors: Mapping[str, Factors]) -> None:
        """Take the factors as they are. Ranks that they leave free begin as in a new LoRA, with B = 0."""
        check_fits(factors, self.network, self.rank, self.of_layers, "cannot start from this LoRA")
        with torch.no_grad():
            for name, (down, up) in factors.items():
                layer = self.network.get_submodule(name)
                layer.lora_A[ADAPTER].weight[: len(down)] = down
                layer.lora_B[ADAPTER].weight[:, : len(down)] = up

    def start_along(self, rows: Tensor) -> None:
        """Begin with given rows of A in the projections that read the text, keys and values.

        B must still be zero: then nothing changes yet but what it will learn first.

        Args:
            rows: (rank, width of the text encoder).

        Raises:
            ValueError: if the rows do not fit, or training has begun.
        """
        ends = architecture_of_network(self.network).text_projections
        layers = [module for name, module in self.network.named_modules() if ends and name.endswith(ends)]
        with torch.no_grad():
            for layer in layers:
                down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
                if down.shape != rows.shape:
                    raise ValueError(f"rows of shape {tuple(rows.shape)} do not fit factors of {tuple(down.shape)}")
                if bool(up.any()):
                    raise ValueError("training has begun: other rows of A would change what is learned")
                down.copy_(rows)


class Weights(Trainable):
    """The cross-attention projections themselves; a copy of these alone is kept for the reference.

    Args:
        network: whose projections are trained, in float32.

    Raises:
        BackboneError: if the network is of an unsupported kind, has an adapter, or holds weights of 16 bits.
    """

    def __init__(self, network: ModelMixin) -> None:
        check_network(network)
        check_no_adapter(network)
        if network.dtype != torch.float32:
            raise BackboneError(f"the weights themselves learn in 32 bits, and are {network.dtype}: load without dtype")
        self.network = network
        ends = architecture_of_network(network).trained_layers("cross-attention")
        self.weights: dict[str, nn.Parameter] = {
            name: module.weight for name, module in network.named_modules() if name.endswith(ends)
        }
        self.parameters = list(self.weights.values())
        for weight in self.parameters:
            weight.requires_grad_(True)
        self.original = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @contextmanager
    def _untouched(self) -> Iterator[ModelMixin]:
        tuned = {name: weight.data for name, weight in self.weights.items()}
        try:
            for name, weight in self.weights.items():
                weight.data = self.original[name]
            yield self.network
        finally:
            for name, weight in self.weights.items():
                weight.data = tuned[name]

    def state(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[name])

    def lora_layers(self) -> dict[str, Tensor]:
        """The change of each matrix by its singular value decomposition, all ranks that carry anything."""
        layers = {}
        for name, weight in self.weights.items():
            change = (weight.detach() - self.original[name]).cpu().double()  # Apple's cards have no float64
            left, sizes, right = torch.linalg.svd(change, full_matrices=False)
            keep = max(1, int((sizes > 1e-7 * sizes.max()).sum()))
            root = sizes[:keep].sqrt()
            layers[f"{name}.lora_A.weight"] = (root[:, None] * right[:keep]).float().contiguous()
            layers[f"{name}.lora_B.weight"] = (left[:, :keep] * root).float().contiguous()
        return layers

    def start_from(self, factors: Mapping[str, Factors]) -> None:
        """Add the product of the factors to the weights, whose originals stay the reference."""
        with torch.no_grad():
            for name, (down, up) in factors.items():
                self.weights[name].add_((up.float() @ down.float()).to(self.weights[name].device))
