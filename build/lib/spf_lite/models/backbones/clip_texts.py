"""Texts of models with two CLIP text encoders: token ids, hidden states, pooled embeddings.

Both encoders cut a text into the same tokens and differ in the PAD token alone. So a text has one list of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn


def padded_for(ids: Tensor, tokenizer: Any, other: Any) -> Tensor:
    """Token ids for the other tokenizer, which has another PAD token.

    Args:
        ids: (B, L), by ``tokenizer``.
        tokenizer: of the first text encoder.
        other: of the second.
    """
    ends = (ids == tokenizer.eos_token_id).int().cumsum(dim=1)
    first_end = (ends == 1) & (ids == tokenizer.eos_token_id)
    behind = (ends >= 1) & ~first_end
    return ids.masked_fill(behind, other.pad_token_id)


@torch.no_grad()
def clip_states(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """Hidden states of the last layer but one, (B, L, width), and the pooled embedding, (B, N); None: it has none."""
    output = encoder(ids, output_hidden_states=True)
    pooled: Tensor | None = output[0] if output[0].ndim == 2 else None
    return output.hidden_states[-2], pooled


def tokenizer_faults(pipe: DiffusionPipeline) -> list[str]:
    """Whether both CLIP tokenizers of a pipeline cut texts into the same tokens."""
    one, other = pipe.tokenizer, pipe.tokenizer_2
    faults: list[str] = []
    if one.get_vocab() != other.get_vocab() or one.eos_token_id != other.eos_token_id:
        faults.append("its two CLIP tokenizers have different tokens")
    if one.model_max_length != other.model_max_length:
        lengths = f"{one.model_max_length} and {other.model_max_length}"
        faults.append(f"its two CLIP tokenizers take {lengths} tokens, supported: the same number")
    return faults


def masked_faults(encoders: Sequence[tuple[str, nn.Module]]) -> list[str]:
    """Whether a text encoder masks its padding, which the pipeline's own prompts would not."""
    return [
        f"the {name} masks its padding (use_attention_mask)"
        for name, encoder in encoders
        if getattr(getattr(encoder, "config", None), "use_attention_mask", False)
    ]
