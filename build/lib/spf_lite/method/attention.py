r"""Recording attention: features, queries and attention maps of every layer through which a text reaches the picture.

.. math:: A = \mathrm{softmax}\big( Q K^\top / \sqrt d \big), \qquad Q = W_Q\, h,\quad K = W_K\, E

    with record(network, size=(16, 16)) as layers:
        network(latents, timestep, encoder_hidden_states)
    layers["down_blocks.0...."].maps     # (B, heads, positions, tokens)

:math:`h` are the features entering the layer and :math:`E` the text embeddings. Fused attention never forms the
probabilities :math:`A`, so recorded layers compute them explicitly; all other layers keep their processors. The
original processors return on exit, also after an exception. Which layers these are, and how they are recorded, the
model's class says (:mod:`spf_lite.models.backbones`).

In the book: :doc:`/03-attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import ModelMixin
from torch import Tensor

from spf_lite.models.backbones.checks import processor_faults
from spf_lite.models.backbones.recording import AttentionError, LayerRecord, Recorder
from spf_lite.models.backbones.registry import architecture_of_network


@contextmanager
def record(network: ModelMixin, size: tuple[int, int], resolution: int = 16) -> Iterator[dict[str, LayerRecord]]:
    """Record every layer of one resolution through which a text reaches the picture, while the context lasts.

    Args:
        network: its layers are recorded with their adapters.
        size: height and width of the latents that will be passed.
        resolution: longer side of the feature maps to record (SPF-Portrait leaves the choice of layers open; default
            16).

    Yields:
        layer name to :class:`LayerRecord`; every forward pass fills it anew. Gradients flow through what is recorded,
        unless the pass runs under ``torch.no_grad``.

    Raises:
        AttentionError: if the network has no such layers, is being recorded already, or no layer had the resolution.
        BackboneError: if a layer has a foreign attention processor, which a recorded layer cannot stand in for.
    """
    architecture = architecture_of_network(network)
    # The layers one by one: diffusers' own set_attn_processor walks through the whole network several times.
    layers = architecture.recorded_layers(network)
    if not layers:
        raise AttentionError("the network has no cross-attention layers to record")
    originals = {name: layer.processor for name, layer in layers.items()}
    if any(isinstance(original, Recorder) for original in originals.values()):
        raise AttentionError("the network is being recorded already: contexts do not nest")
    processor_faults(originals, architecture.processors)
    records: dict[str, LayerRecord] = {}
    for name, layer in layers.items():
        layer.set_processor(architecture.recorder(name, originals[name], size, resolution, records))
    try:
        yield records
    finally:
        for name, layer in layers.items():
            layer.set_processor(originals[name])
    if not records:
        raise AttentionError(f"no cross-attention layer of resolution {resolution} was passed for latents of {size}")


def mean_maps(records: dict[str, LayerRecord]) -> Tensor:
    """Attention maps averaged over heads and layers, in float32: (B, tokens, height, width).

    Raises:
        AttentionError: if there are no records.
    """
    if not records:
        raise AttentionError("no layer was recorded: run the network inside the context")
    layers = list(records.values())
    average = torch.stack([layer.maps.float().mean(dim=1) for layer in layers]).mean(dim=0)  # (B, positions, tokens)
    maps: Tensor = average.transpose(1, 2).unflatten(-1, layers[0].size)
    return maps
