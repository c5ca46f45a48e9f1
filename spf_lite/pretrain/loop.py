"""One training loop for everything that is pretrained: schedule, averaged weights, log, checkpoint, resume.

A part (autoencoder, CLIP, UNet, judge) brings its modules and a function that returns the loss terms of one step; the
loop does the rest. It may be killed at any time: the next call continues from the last checkpoint. Started by
``torchrun``, several processes share the work, each with its part of the batch: on a few CPU cores that is faster than
one process with as many threads.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm.auto import tqdm

from spf_lite.files import replacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: the plateau of the schedule.
        warmup: steps of linear warm-up.
        decay: steps of linear decay to zero at the end. A run that turns out too short is prolonged by a larger
            ``steps``: the plateau has no memory of its planned end.
        ema: decay of the averaged weights, which are what is shipped.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of the data order and the noise.
        checkpoint_seconds: least time between two checkpoints.
        bfloat16: compute what autocast allows in 16 bits (weights, losses and the optimiser stay in 32): half the
            time on processors that have such instructions.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 1000
    ema: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    checkpoint_seconds: float = 60.0
    bfloat16: bool = True

    def factor(self, step: int) -> float:
        """The learning rate at ``step`` as a share of the plateau."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, max(0.0, (self.steps - step) / max(1, self.decay)))
        return rise * fall


def join_processes() -> None:
    """Connect to the other processes that ``torchrun`` started; nothing to do when there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def processes() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _share_gradients(parameters: list[nn.Parameter], count: int) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


Step = Callable[[nn.Module, torch.Generator], dict[str, torch.Tensor]]


def fit(name: str, model: nn.Module, step: Step, schedule: Schedule, folder: Path, log_every: int = 25) -> nn.Module:
    """Train ``model`` (or go on training it) and return it with its averaged weights.

    Args:
        name: of the part; names the checkpoint and the log.
        model: what is trained; its parameters that do not require a gradient are left alone.
        step: called with the model and the run's generator; returns scalar loss terms, of which ``loss`` is minimised.
        schedule: see :class:`Schedule`.
        folder: where ``<name>.pt`` (checkpoint) and ``<name>.jsonl`` (log) live.
        log_every: steps between two lines of the log.

    Raises:
        FloatingPointError: when the loss is not finite; the last checkpoint stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
    )
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    rank, count = processes()
    generator = torch.Generator()
    start, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, start, seconds = state["average"], state["step"], state["seconds"]
        logger.info("%s: resumed at step %d", name, start)

    def save(done: int) -> None:
        if rank > 0:
            return
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": done,
            "seconds": seconds,
            "schedule": asdict(schedule),
        }
        with replacing(path) as file:
            torch.save(state, file)

    model.train()
    last = saved = time.monotonic()
    bar = tqdm(
        range(start, schedule.steps), initial=start, total=schedule.steps, desc=name, mininterval=5, disable=rank > 0
    )
    for index in bar:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * schedule.factor(index)
        # Seeded anew for every step and process: resuming needs no random state, and no two processes draw the same.
        seeded = generator.manual_seed((schedule.seed * 1_000_003 + index) * 64 + rank)
        with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
            terms = step(model, seeded)
        loss = terms["loss"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: loss is {loss.item()} at step {index}; the last checkpoint is {path}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if count > 1:
            _share_gradients(parameters, count)
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimizer.step()
        decay = min(schedule.ema, (1 + index) / (10 + index))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - decay)
                else:
                    average[key].copy_(value)
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        if rank == 0 and (index % log_every == 0 or index + 1 == schedule.steps):
            values = {key: round(value.item(), 6) for key, value in terms.items()}
            line = {"step": index, "seconds": round(seconds, 1), **values}
            bar.set_postfix(values, refresh=False)
            with log_path.open("a") as log:
                log.write(json.dumps(line) + "\n")
        if now - saved > schedule.checkpoint_seconds:
            save(index + 1)
            saved = now
    save(schedule.steps if start < schedule.steps else start)
    model.load_state_dict(average)
    return model.eval()
