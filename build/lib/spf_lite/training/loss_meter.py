"""The means of a step's loss terms, over all parts and processes: over all timesteps, and by range of timesteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from spf_lite.method.losses import Term

#: Into how many equal ranges of timesteps the log splits each term.
BINS = 4


class TrainingDivergedError(FloatingPointError):
    """Something is not finite; the message says what, and at which step. The last good checkpoint is kept."""


def check_finite(tensors: Mapping[str, Tensor], when: str) -> None:
    """Raise :class:`TrainingDivergedError` if a tensor is not finite; the message begins with ``when``."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingDivergedError(f"{when}: {name} is not finite")


class LossMeter:
    """Sums and counts per term and timestep bin.

    Args:
        names: of the terms.
        num_train_timesteps: of the scheduler.
    """

    def __init__(self, names: Sequence[str], num_train_timesteps: int) -> None:
        self.names, self.num_train_timesteps = list(names), num_train_timesteps
        self.sums = torch.zeros(len(self.names), BINS, 2, dtype=torch.float64)

    def add(self, step: int, terms: Mapping[str, Term], timesteps: Tensor) -> None:
        """Add one part of the batch.

        Raises:
            TrainingDivergedError: if a value is not finite.
        """
        bins = (timesteps * BINS // self.num_train_timesteps).cpu()
        for row, name in enumerate(self.names):
            values, chosen = terms[name].values.detach().cpu().double(), terms[name].applies.cpu()
            bad = chosen & ~values.isfinite()
            if bad.any():
                where = timesteps.cpu()[bad].tolist()
                raise TrainingDivergedError(f"step {step}: {name} is {values[bad][0].item()} at t = {where}")
            self.sums[row, :, 0].index_add_(0, bins[chosen], values[chosen])
            self.sums[row, :, 1].index_add_(0, bins[chosen], torch.ones_like(values[chosen]))

    def reduce(self, accelerator: Accelerator) -> None:
        """Sum over all processes."""
        if accelerator.num_processes > 1:
            self.sums = accelerator.reduce(self.sums.to(accelerator.device), reduction="sum").cpu()

    def means(self) -> dict[str, float]:
        """Mean of each term over the items that it applies to; 0 when there were none."""
        totals = self.sums.sum(dim=1)
        return {name: (total / max(count, 1)) for name, (total, count) in zip(self.names, totals.tolist(), strict=True)}

    def by_timestep(self) -> dict[str, list[float | None]]:
        """The same in each range of timesteps, from little noise to much; None where there was no item."""
        return {
            name: [total / count if count else None for total, count in row]
            for name, row in zip(self.names, self.sums.tolist(), strict=True)
        }
