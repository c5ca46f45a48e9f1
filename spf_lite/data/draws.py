"""What a step is made of: which items, which noise, which timesteps. Drawn from the step's own seed, so that nothing
depends on what was drawn before: a resumed run needs no random state, and every process draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item


@dataclass(frozen=True)
class Draw:
    """A batch to be: B items.

    Attributes:
        items: custom portraits first, then the reference's own.
        reconstruction: which of them are fed the base text on both paths.
        noise: eps, (B, C, h, w).
        timesteps: t, (B,).
    """

    items: list[Item]
    reconstruction: list[bool]
    noise: Tensor
    timesteps: Tensor

    def part(self, index: int, parts: int) -> Draw:
        """Every ``parts``-th item from ``index`` on: each part has its share of both kinds."""
        return Draw(
            self.items[index::parts],
            self.reconstruction[index::parts],
            self.noise[index::parts],
            self.timesteps[index::parts],
        )

    @property
    def is_reference(self) -> Tensor:
        """(B,)."""
        return torch.tensor([item.is_reference for item in self.items])


def draw(
    config: TrainConfig, step: int, custom: Sequence[Item], references: Sequence[Item], num_train_timesteps: int
) -> Draw:
    """The batch of one step.

    Args:
        config: the run.
        step: its number; from the first step of stage 2 on, part of the batch are ``references``.
        custom: the custom set.
        references: the reference's own portraits; none: the custom set alone.
        num_train_timesteps: of the scheduler.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    in_stage2 = step >= config.stage1_steps
    own = 0
    if in_stage2 and references:
        whole, rest = divmod(config.batch_size * config.reference_share, 1)
        # A share that is no whole number of items is met on average: a batch of one is a reference portrait by chance.
        own = int(whole) + int(rest > 0 and float(torch.rand((), generator=generator)) < rest)
    chosen = torch.randint(len(custom), (config.batch_size - own,), generator=generator).tolist()
    drawn = torch.randint(max(1, len(references)), (own,), generator=generator).tolist()
    again = (torch.rand(own, generator=generator) < config.reconstruction_share).tolist()
    if not (config.weight_reconstruction or config.weight_prior):
        again = [False] * own
    noise = torch.randn(config.batch_size, *custom[0].latents.shape, generator=generator)
    return Draw(
        [custom[i] for i in chosen] + [references[i] for i in drawn],
        [False] * (config.batch_size - own) + again,
        noise,
        torch.randint(num_train_timesteps, (config.batch_size,), generator=generator),
    )
