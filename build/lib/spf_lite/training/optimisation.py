"""From gradients to new parameters: clip, update, and let adaptive ranks adapt."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from spf_lite.config import TrainConfig
from spf_lite.models.adapters.base import Trainable
from spf_lite.training.loss_meter import TrainingDivergedError
from spf_lite.training.schedule import learning_rates


def adam_of(parameters: list[nn.Parameter], config: TrainConfig) -> Optimizer:
    """AdamW without weight decay (Loshchilov & Hutter 2019), of the kind that the configuration names.

    Args:
        parameters: float32.
        config: gives kind and learning rate. bitsandbytes keeps moments of 32 bits for tensors with fewer than 4,096
            numbers.

    Raises:
        ValueError: if ``adamw8bit`` is asked for and bitsandbytes cannot be imported.
    """
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    try:
        from bitsandbytes.optim import AdamW8bit
    except (ImportError, OSError, RuntimeError) as error:  # its libraries may not fit the machine
        raise ValueError(
            f"optimizer=adamw8bit needs bitsandbytes, which cannot be imported ({error}): "
            "pip install 'spf-lite[8bit]', or set optimizer=adamw"
        ) from error
    eight: Optimizer = AdamW8bit(parameters, lr=config.learning_rate, weight_decay=0.0)
    return eight


class Optimisation:
    """AdamW without weight decay (:func:`adam_of`), its schedule, and in fp16 the scaler of the loss.

    Args:
        trained: what is trained.
        config: the run.
        accelerator: of all processes.

    Attributes:
        updating: True from when the parameters begin to move until :meth:`done`. What is interrupted meanwhile is no
            state to go on from.

    Raises:
        ValueError: if the optimiser's package is not there.
    """

    def __init__(self, trained: Trainable, config: TrainConfig, accelerator: Accelerator) -> None:
        self.trained, self.config, self.accelerator = trained, config, accelerator
        adam = adam_of(trained.parameters, config)
        self.schedule = learning_rates(adam, config)
        self.optimizer = accelerator.prepare_optimizer(adam)
        self.updating = False

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return float(self.schedule.get_last_lr()[0])

    def update(self, step: int, timesteps: list[int]) -> None:
        """Sum the gradients of all processes, clip their norm, and move the parameters.

        Raises:
            TrainingDivergedError: if the gradient is not finite. In fp16 such a step is skipped, and the loss scaled
                less; the error comes when the gradient is not finite at scale 1 either.
        """
        parameters, scaler = self.trained.parameters, self.accelerator.scaler
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        norm = self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm)
        if (scaler is None or not scaler.is_enabled()) and not torch.isfinite(norm):
            raise TrainingDivergedError(f"step {step}: the gradient is {norm.item()} at t = {timesteps}")
        self.updating = True
        self.optimizer.step()
        self.schedule.step()
        if not self.optimizer.step_was_skipped:
            self.trained.after_backward(step)
        elif scaler is not None and scaler.get_scale() < 1:
            raise TrainingDivergedError(f"step {step}: the gradient is not finite at any scale, at t = {timesteps}")

    def done(self) -> None:
        """The step is counted: from here on it may be interrupted."""
        self.updating = False

    def state_dict(self) -> dict[str, Any]:
        """Moments, schedule and scale."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
