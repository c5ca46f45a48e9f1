r"""Several adapters of one base model as one: their changes add up, and each can be taken out again.

A LoRA adds :math:`B A` to the weight of a layer (Hu et al. 2021, equation 3). Adapters that were trained one after
another, each on top of the former ones, add all their changes, and concatenated factors have the same sum:

.. math:: W + B_1 A_1 + B_2 A_2 = W + [B_1\ B_2] \begin{bmatrix} A_1 \\ A_2 \end{bmatrix}

So a combined file is an ordinary LoRA again, of the sum of the ranks. Ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor

from spf_lite.models.adapters.lora import check_no_adapter, load_factors
from spf_lite.models.adapters.lora_file import Factors, read_lora
from spf_lite.models.errors import BackboneError

if TYPE_CHECKING:
    from spf_lite.models.backbone import Backbone


def combined(parts: Sequence[tuple[Mapping[str, Factors], float]]) -> dict[str, Factors]:
    """The factors of one LoRA with the sum of the changes of several.

    Args:
        parts: of each, both factors by the layer's name, and its strength, the factor of its change.

    Raises:
        ValueError: if a strength is not finite.
    """
    if not all(isfinite(strength) for _, strength in parts):
        raise ValueError(f"strengths {', '.join(str(strength) for _, strength in parts)}: expected finite numbers")
    factors: dict[str, Factors] = {}
    for name in sorted({name for part, _ in parts for name in part}):
        own = [(part[name], strength) for part, strength in parts if name in part]
        down = torch.cat([pair.down.float() for pair, _ in own])
        up = torch.cat([pair.up.float() * strength for pair, strength in own], dim=1)
        factors[name] = Factors(down, up)
    return factors


def read_stack(
    adapters: Sequence[str | Path], network: ModelMixin, strengths: Sequence[float] | None = None
) -> dict[str, Factors]:
    """Several LoRA files as the factors of one (:func:`combined`).

    Args:
        adapters: files or folders, as :func:`spf_lite.models.adapters.lora_file.read_lora` takes them.
        network: that they are for; it is not changed.
        strengths: one for each; default: 1.

    Raises:
        BackboneError: if one of them cannot be read or does not fit.
        ValueError: if there are not as many strengths as adapters, or one is not finite.
    """
    return combined([(read_lora(path, network), strength) for path, strength in with_strengths(adapters, strengths)])


def with_strengths(adapters: Sequence[str | Path], strengths: Sequence[float] | None) -> list[tuple[str | Path, float]]:
    """Each adapter with its strength; 1 if none are given.

    Raises:
        ValueError: if there are not as many strengths as adapters.
    """
    strengths = [1.0] * len(adapters) if strengths is None else strengths
    if len(strengths) != len(adapters):
        raise ValueError(f"{len(strengths)} strengths for {len(adapters)} adapters: each needs one")
    return list(zip(adapters, strengths, strict=True))


def load_stack(
    model: Backbone | DiffusionPipeline, adapters: Sequence[str | Path], strengths: Sequence[float] | None = None
) -> None:
    """Load several LoRAs into the network at once, in the place of what was loaded before.

    Args:
        model: a backbone, or its pipeline.
        adapters: files or folders. One is taken out again by loading the others.
        strengths: one for each, factor of its change; default: 1.

    Raises:
        BackboneError: if there is none, one cannot be read or does not fit, or the network is in training. The model is
            then as it was.
        ValueError: if there are not as many strengths as adapters, or one is not finite.
    """
    if not adapters:
        raise BackboneError("no adapter to load")
    load_factors(model, lambda network: read_stack(adapters, network, strengths))


def change(pair: Factors) -> Tensor:
    """What a LoRA adds to the weight of its layer: B A, in the shape of the weight, float32."""
    product = pair.up.float().flatten(1) @ pair.down.float().flatten(1)
    return product.view(len(pair.up), *pair.down.shape[1:])


@torch.no_grad()
def merge(network: ModelMixin, factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """Add the change of a LoRA to the weights of a network: what it has learned becomes part of the reference.

    Args:
        network: its weights are replaced, not overwritten.
        factors: by layer.

    Returns:
        The weights that were there before, by layer. :func:`take_out` puts them back.

    Raises:
        BackboneError: if something has been put on the network.
    """
    check_no_adapter(network)
    before = {name: network.get_submodule(name).weight.data for name in factors}
    for name, pair in factors.items():
        weight = before[name]
        added = weight.float() + change(pair).to(weight.device)
        network.get_submodule(name).weight.data = added.to(weight.dtype)
    return before


def take_out(network: ModelMixin, before: Mapping[str, Tensor]) -> None:
    """Put the weights back that :func:`merge` returned, to the last bit."""
    for name, weight in before.items():
        network.get_submodule(name).weight.data = weight
