"""The learning rate over a run, and the accelerator that it runs on."""

from __future__ import annotations

from math import cos, pi

import torch
from accelerate import Accelerator
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spf_lite.config import TrainConfig
from spf_lite.models.loading.compatibility import check_precision


def learning_rates(optimizer: Optimizer, config: TrainConfig) -> LambdaLR:
    """Linear warm-up, then constant, or down to zero along half a cosine (Loshchilov & Hutter 2017).

    Not diffusers' ``get_scheduler``: its warm-up begins with a step of rate zero, which is a step lost, and its cosine
    begins after the warm-up instead of with it. Without warm-up both give the same rates.
    """

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (config.warmup_steps + 1))
        fall = 0.5 * (1 + cos(pi * min(step, config.steps) / config.steps)) if config.schedule == "cosine" else 1.0
        return rise * fall

    return LambdaLR(optimizer, factor)


def accelerator_for(config: TrainConfig, device: torch.device) -> Accelerator:
    """An accelerator on the backbone's device, in the configuration's precision.

    Raises:
        ValueError: if this process has trained in another precision already (accelerate knows one per process), or the
            device cannot compute in it.
    """
    if config.mixed_precision == "fp16":  # on a processor accelerate would compute in 32 bits without a word
        check_precision(device, torch.float16)
    return Accelerator(mixed_precision=config.mixed_precision, cpu=device.type == "cpu")
