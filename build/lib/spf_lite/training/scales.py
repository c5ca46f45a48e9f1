"""Bringing the loss terms of stage 2 to one size, so that weights compare like with like.

Terms differ by orders of magnitude (attention probabilities, features, noise). Each is multiplied by the ratio of the
denoising term's mean to its own mean, over a few batches before the first step of stage 2. The factor then stays fixed,
so that a term that training has satisfied becomes small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator

from spf_lite.choices import WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.data.draws import Draw
from spf_lite.method.dual_path import Step
from spf_lite.training.loss_meter import LossMeter

#: A term smaller than this share of the denoising term keeps its size.
TINY = 1e-9


@torch.no_grad()
def term_scales(
    config: TrainConfig,
    parts: Iterable[Draw],
    run: Callable[[Draw], AbstractContextManager[Step]],
    num_train_timesteps: int,
    accelerator: Accelerator,
) -> dict[str, float]:
    """The factor of each term that has a weight.

    A term that is zero (both paths still agree, because there was no stage 1) keeps its size.

    Args:
        config: the run.
        parts: this process's parts of the batches.
        run: the forward passes of one part; gives its terms.
        num_train_timesteps: of the scheduler.
        accelerator: of all processes.
    """
    meter = LossMeter([name for name in WEIGHTS if config.weight(name)], num_train_timesteps)
    for part in parts:
        with run(part) as step:
            meter.add(config.stage1_steps, step.terms, part.timesteps)
    meter.reduce(accelerator)
    sizes = meter.means()
    unit = sizes.get("denoise") or 1.0
    return {name: unit / size if size > TINY * unit else 1.0 for name, size in sizes.items()}
