"""Rows behind the tokens of an encoded text: a pooled embedding, or a mask.

In the memory of items and batches a text is one tensor, whatever its class derives from it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pack(hidden: Tensor, vector: Tensor) -> Tensor:
    """Put a vector in rows behind the hidden states, the last row filled up with zeros.

    Args:
        hidden: (B, L, width).
        vector: (B, N).

    Returns:
        (B, L + ceil(N / width), width), float32.
    """
    width = hidden.shape[-1]
    padded = F.pad(vector.float(), (0, -vector.shape[-1] % width))
    return torch.cat([hidden.float(), padded.unflatten(-1, (-1, width))], dim=1)


def unpack(text: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Take apart what :func:`pack` has put together.

    Args:
        text: (..., R, width).
        size: N, of the vector.

    Returns:
        hidden states (..., L, width) and vector (..., N).
    """
    rows = packed_rows(size, text.shape[-1])
    hidden, packed = text[..., :-rows, :], text[..., -rows:, :]
    return hidden, packed.flatten(-2)[..., :size]


def packed_rows(size: int, width: int) -> int:
    """How many rows a vector takes."""
    return -(-size // width)
