"""What mixed precision must not do: reuse a cast of weights that have changed since, or add up a loss in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp.autocast_mode import is_autocast_available


def forget_casts() -> None:
    """Drop autocast's 16-bit copies of weights.

    Within one autocast context PyTorch casts a trained weight once and keeps the copy. Whoever changes such a weight in
    place, or takes the copy under ``torch.no_grad``, has to drop the copies, or the next forward pass uses a stale one.
    """
    torch.clear_autocast_cache()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Compute in 32 bits, also inside autocast: losses, their sums and the control map."""
    if not is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
