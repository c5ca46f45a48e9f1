"""What a step is made of: which items, which noise, which timesteps.

All of it comes from a random generator that is seeded by the run's seed and the step's number. So it does not depend on
what was drawn before: a resumed run needs no random state, and every process draws the same batch.

Items of different sizes (:func:`spf_lite.data.sets.geometry.buckets`) never share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, by_size, without_text


@dataclass(frozen=True)
class Draw:
    """What a batch is made of: B items of one size.

    Attributes:
        items: custom portraits first, then reference portraits, then anchors.
        reconstruction: which of them have one and the same text on both paths: anchors, and reference portraits that
            are reconstructed.
        noise: eps, (B, C, h, w).
        timesteps: t, (B,).
    """

    items: list[Item]
    reconstruction: list[bool]
    noise: Tensor
    timesteps: Tensor

    def part(self, index: int, parts: int) -> Draw:
        """Every ``parts``-th item from ``index`` on, so that each part has its share of both kinds of item."""
        return Draw(
            self.items[index::parts],
            self.reconstruction[index::parts],
            self.noise[index::parts],
            self.timesteps[index::parts],
        )

    @property
    def is_reference(self) -> Tensor:
        """Which items are reference portraits, (B,)."""
        return torch.tensor([item.is_reference for item in self.items])


def draw(
    config: TrainConfig,
    step: int,
    custom: Sequence[Item],
    references: Sequence[Item],
    num_train_timesteps: int,
    empty: Tensor | None = None,
) -> Draw:
    """The batch of one step.

    First come the anchors' share, then the reference portraits' share of what is left; the rest are custom portraits.

    Args:
        config: the run.
        step: its number; from the first step of stage 2 on, ``config.reference_share`` of the batch are ``references``.
            If that is no whole number of items, it is met on average.
        custom: items of the custom set. If they have several sizes, the batch gets each with the probability of its
            share of the items.
        references: items of reference portraits, with every size of ``custom``; empty: the custom set alone.
        num_train_timesteps: of the scheduler.
        empty: the empty text, encoded, (R, width), for anchors that have it.

    Raises:
        ValueError: if anchors have the empty text, and ``empty`` is not given.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    if len(by_size(custom)) > 1:  # one size needs no random number: its runs are what they were before there were more
        size = custom[int(torch.randint(len(custom), (), generator=generator))].latents.shape
        custom = [item for item in custom if item.latents.shape == size]
        references = [item for item in references if item.latents.shape == size]
    in_stage2 = step >= config.stage1_steps
    anchors = _anchors(config, custom, references, empty, generator)
    others = config.batch_size - len(anchors)
    own = _count(others * config.reference_share, generator) if in_stage2 and references else 0
    chosen = torch.randint(len(custom), (others - own,), generator=generator).tolist()
    drawn = torch.randint(max(1, len(references)), (own,), generator=generator).tolist()
    again = (torch.rand(own, generator=generator) < config.reconstruction_share).tolist()
    if not (config.weight_reconstruction or config.weight_prior):
        again = [False] * own
    noise = torch.randn(config.batch_size, *custom[0].latents.shape, generator=generator)
    return Draw(
        [custom[i] for i in chosen] + [references[i] for i in drawn] + anchors,
        [False] * (others - own) + again + [True] * len(anchors),
        noise,
        _timesteps(config, num_train_timesteps, generator),
    )


def _timesteps(config: TrainConfig, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps of a batch, (B,), each from 0 to ``count`` - 1."""
    if config.timesteps == "uniform":
        return torch.randint(count, (config.batch_size,), generator=generator)
    # The logit of t / count has a standard normal distribution. Rounding may give 1, which is no timestep.
    shares = torch.randn(config.batch_size, generator=generator).sigmoid()
    return (shares * count).long().clamp(max=count - 1)


def _count(expected: float, generator: torch.Generator) -> int:
    """A whole number of items whose mean is the expected number."""
    # Rounded, or 0.29 of 100 items would be 28.999999999999996 and no whole number.
    whole, rest = divmod(round(expected, 9), 1)
    return int(whole) + int(rest > 0 and float(torch.rand((), generator=generator)) < rest)


def _anchors(
    config: TrainConfig,
    custom: Sequence[Item],
    references: Sequence[Item],
    empty: Tensor | None,
    generator: torch.Generator,
) -> list[Item]:
    """The anchors of a batch: those with the base text first, then those with the empty text."""
    if not config.anchor_share:  # no random number is drawn: runs without anchors are what they were before
        return []
    count = _count(config.batch_size * config.anchor_share, generator)
    empty_count = _count(count * config.anchor_empty, generator)
    if empty_count and empty is None:
        raise ValueError("anchors with the empty text need its embedding")
    items = []
    for number in range(count):
        on_own = not references or float(torch.rand((), generator=generator)) < config.anchor_own
        pool = custom if on_own else references
        item = pool[int(torch.randint(len(pool), (), generator=generator))]
        items.append(item if number < count - empty_count or empty is None else without_text(item, empty))
    return items
