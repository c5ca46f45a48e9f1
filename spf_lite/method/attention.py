r"""Recording cross-attention: features, queries and attention maps of every layer of one resolution.

.. math:: A = \mathrm{softmax}\big( Q K^\top / \sqrt d \big), \qquad Q = W_Q\, h,\quad K = W_K\, E

    with record(unet, size=(16, 16)) as layers:
        unet(latents, timestep, encoder_hidden_states)
    layers["down_blocks.0...."].maps     # (B, heads, positions, tokens)

:math:`h` are the features entering the layer and :math:`E` the text embeddings. Fused attention never forms the
probabilities :math:`A`, so recorded layers compute them explicitly; all other layers keep their processors. The
original processors return on exit, also after an exception.

In the book: :doc:`/03-attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from spf_lite.models.compatibility import check_processors


class AttentionError(RuntimeError):
    """Cross-attention could not be recorded; the message says why."""


@dataclass(frozen=True)
class LayerRecord:
    """One cross-attention layer in one forward pass. Positions are the pixels of the feature map, row by row.

    Attributes:
        size: height and width of the feature map.
        inputs: h, features entering the layer, (B, positions, channels).
        queries: Q, their projection by ``to_q``, (B, positions, channels).
        maps: A, attention probabilities, (B, heads, positions, tokens); they sum to 1 over the tokens.
        outputs: features leaving the layer, (B, positions, channels).
    """

    size: tuple[int, int]
    inputs: Tensor
    queries: Tensor
    maps: Tensor
    outputs: Tensor


class _Recorder:
    """An attention processor that records, for one layer."""

    def __init__(
        self, name: str, original: Any, size: tuple[int, int], resolution: int, records: dict[str, LayerRecord]
    ) -> None:
        self.name, self.original, self.records = name, original, records
        self.latent_size, self.resolution = size, resolution

    def layer_size(self, positions: int) -> tuple[int, int] | None:
        """Height and width of the feature map if it has the wanted resolution, else None."""
        height, width = self.latent_size
        factor = round((height * width / positions) ** 0.5)
        found = (-(-height // factor), -(-width // factor))
        return found if max(found) == self.resolution and found[0] * found[1] == positions else None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        size = self.layer_size(hidden_states.shape[1]) if hidden_states.ndim == 3 else None
        if size is None or encoder_hidden_states is None:
            unrecorded: Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, **options)
            return unrecorded
        queries = attn.to_q(hidden_states)
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, positions or tokens, channels)
            for projected in (queries, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        )
        scores = (query * attn.scale) @ key.transpose(-1, -2)
        if attention_mask is not None:
            # diffusers turns encoder_attention_mask into one bias per text token, (B, 1, tokens): repeat it per head.
            bias = attn.prepare_attention_mask(attention_mask, encoder_hidden_states.shape[1], len(hidden_states))
            scores = scores + bias.unflatten(0, (-1, attn.heads))
        maps = scores.softmax(dim=-1)
        outputs = attn.to_out[1](attn.to_out[0]((maps @ value).transpose(1, 2).flatten(2)))
        self.records[self.name] = LayerRecord(size, hidden_states, queries, maps, outputs)
        result: Tensor = outputs / attn.rescale_output_factor
        return result


@contextmanager
def record(unet: UNet2DConditionModel, size: tuple[int, int], resolution: int = 16) -> Iterator[dict[str, LayerRecord]]:
    """Record every cross-attention layer of one resolution while the context lasts.

    Args:
        unet: its cross-attention layers ("attn2") are recorded, with their adapters.
        size: height and width of the latents that will be passed.
        resolution: longer side of the feature maps to record (SPF-Portrait leaves the choice of layers open; default
            16).

    Yields:
        layer name to :class:`LayerRecord`; every forward pass fills it anew. Gradients flow through what is recorded,
        unless the pass runs under ``torch.no_grad``.

    Raises:
        AttentionError: if the UNet has no cross-attention, is being recorded already, or no layer had the resolution.
        BackboneError: if a layer has a foreign attention processor, which a recorded layer cannot stand in for.
    """
    # The layers one by one: diffusers' own set_attn_processor walks through the whole UNet several times.
    layers = {name: module for name, module in unet.named_modules() if name.endswith("attn2")}
    if not layers:
        raise AttentionError("the UNet has no cross-attention layers to record")
    originals = {name: layer.processor for name, layer in layers.items()}
    if any(isinstance(original, _Recorder) for original in originals.values()):
        raise AttentionError("the UNet is being recorded already: contexts do not nest")
    check_processors(originals)
    records: dict[str, LayerRecord] = {}
    for name, layer in layers.items():
        layer.set_processor(_Recorder(name, originals[name], size, resolution, records))
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
        raise AttentionError("no layer was recorded: run the UNet inside the context")
    layers = list(records.values())
    average = torch.stack([layer.maps.float().mean(dim=1) for layer in layers]).mean(dim=0)  # (B, positions, tokens)
    maps: Tensor = average.transpose(1, 2).unflatten(-1, layers[0].size)
    return maps
