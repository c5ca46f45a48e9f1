r"""What is recorded of an attention layer through which a text reaches the picture, and how cross-attention records it.

.. math:: A = \mathrm{softmax}\big( Q K^\top / \sqrt d \big), \qquad Q = W_Q\, h,\quad K = W_K\, E

:math:`h` are the features entering the layer and :math:`E` the text embeddings. Fused attention never forms the
probabilities :math:`A`, so recorded layers compute them explicitly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor


class AttentionError(RuntimeError):
    """Attention could not be recorded; the message says why."""


@dataclass(frozen=True)
class LayerRecord:
    """One attention layer in one forward pass. Positions are the pixels of the feature map, row by row.

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


class Recorder:
    """An attention processor that records, for one layer.

    Args:
        name: of the layer.
        original: its processor, which computes what is not recorded.
        size: height and width of the latents.
        resolution: longer side of the feature maps that are recorded.
        records: gets what is recorded.
    """

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


def by_head(projected: Tensor, heads: int) -> Tensor:
    """Queries, keys or values, (B, tokens or positions, channels), by head: (B, heads, tokens or positions, each)."""
    split: Tensor = projected.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


class CrossAttentionRecorder(Recorder):
    """Records cross-attention, in the place of a plain processor of diffusers."""

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
        keys, values = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        query, key, value = (by_head(projected, attn.heads) for projected in (queries, keys, values))
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
