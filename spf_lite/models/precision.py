"""Guards of mixed precision: no stale 16-bit copy of a weight is used, and losses are summed in 32 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp.autocast_mode import is_autocast_available


def forget_casts() -> None:
    """Drop autocast's 16-bit copies of weights.

    Within one autocast context PyTorch casts each trained weight once and reuses the copy. After a weight was changed
    in place the copy is stale, and a copy that was made under ``torch.no_grad`` passes no gradient on. Call this
    whenever reference and response path, or two states of the weights, are switched.
    """
    torch.clear_autocast_cache()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context that computes in 32 bits, also inside autocast: for losses, their sums and the control map.

    Args:
        device: that the tensors are on.
    """
    if not is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def check_precision(dtype: torch.dtype, mixed_precision: str) -> None:
    """Check that training can compute with frozen weights of a type.

    Args:
        dtype: of the weights.
        mixed_precision: of the run, as in :class:`spf_lite.config.TrainConfig`.

    Raises:
        ValueError: if weights of 16 bits are to compute in 32.
    """
    if dtype != torch.float32 and mixed_precision == "no":
        raise ValueError(f"weights of {dtype} want mixed_precision=fp16 or bf16, and it is 'no'")
