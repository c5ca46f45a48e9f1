"""One training loop for every part of the tiny model: learning rate, averaged weights, log, checkpoint, resume.

A part (autoencoder, CLIP, UNet, judge) brings its modules and a function that returns the loss terms of one step. The
loop may be killed at any time: the next call continues from the last checkpoint. Started by ``torchrun``, several
processes share the work, each with its own portraits: on a few CPU cores that is faster than one process with as many
threads.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from spf_lite.files import replacing

logger = logging.getLogger(__name__)

#: Computes the loss terms of one step from the model and the step's own generator; ``loss`` is minimised.
Step = Callable[[nn.Module, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: the highest one, between warm-up and decay.
        warmup: steps of linear warm-up.
        decay: steps of linear decay to zero at the end. A run that turns out too short is prolonged by a larger
            ``steps``: between warm-up and decay the learning rate is constant, wherever the end lies.
        ema: decay of the averaged weights, which are what is shipped.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of the order of the data and of the noise.
        checkpoint_seconds: least time between two checkpoints.
        bfloat16: on processors with instructions for it, which halve the time, compute what autocast allows in 16 bits
            (weights, losses and the optimiser stay in 32). Others would take fifty times as long, and compute in 32.
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
        """The learning rate at ``step`` as a share of the highest one."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, max(0.0, (self.steps - step) / max(1, self.decay)))
        return rise * fall


def has_bfloat16() -> bool:
    """Whether this processor multiplies matrices in bfloat16; False as well if PyTorch is too old to know."""
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def process_state() -> PartialState:
    """Which of the processes that ``torchrun`` started this one is; the only one, if it started none."""
    return PartialState(cpu=True)


class _Part(nn.Module):
    """A model whose forward pass is one training step.

    accelerate averages the gradients of all processes, and casts to 16 bits, around the forward pass of the module that
    it is given. A step calls the model's own methods (``encode``, ``decode``), so the step is made the forward pass.
    """

    def __init__(self, model: nn.Module, step: Step) -> None:
        super().__init__()
        self.model = model
        self.step = step

    def forward(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.step(self.model, generator)


def _drop_partial_line(path: Path) -> None:
    """Cut a last line that a killed process did not finish writing."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])


def fit(name: str, model: nn.Module, step: Step, schedule: Schedule, folder: Path, log_every: int = 25) -> nn.Module:
    """Train ``model`` (or go on training it) and return it with its averaged weights.

    Args:
        name: of the part; names the checkpoint and the log.
        model: what is trained; its parameters that do not require a gradient are left alone.
        step: see :data:`Step`; its terms are scalars.
        schedule: see :class:`Schedule`.
        folder: where ``<name>.pt`` (checkpoint) and ``<name>.jsonl`` (log) live.
        log_every: steps between two lines of the log.

    Raises:
        FloatingPointError: if the loss is not finite; the last checkpoint stays as it was.
        ValueError: if the checkpoint is none of this loop's, or this process has trained in another precision already
            (accelerate knows one per process).
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
    accelerator = Accelerator(
        cpu=True,
        mixed_precision="bf16" if schedule.bfloat16 and has_bfloat16() else "no",
        # Of an AutoencoderTiny only the decoder is trained: the encoder's parameters get no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
    )
    average = EMAModel(model.parameters(), decay=schedule.ema)
    start, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if missing := sorted({"model", "optimizer", "ema", "step", "seconds"} - set(state)):
            raise ValueError(f"{path} lacks {', '.join(missing)}: it is no checkpoint of this version; move it away")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        # The number of updates and the weights go on; the decay is the schedule's, which may have changed.
        average.load_state_dict({**state["ema"], "decay": schedule.ema})
        start, seconds = state["step"], state["seconds"]
        logger.info("%s: resumed at step %d", name, start)
    for group in optimizer.param_groups:
        group["initial_lr"] = schedule.learning_rate
    rates = LambdaLR(optimizer, schedule.factor, last_epoch=start - 1)
    trained, prepared = accelerator.prepare(_Part(model, step), optimizer)
    main, rank = accelerator.is_main_process, accelerator.process_index
    if main:
        _drop_partial_line(log_path)

    def save(done: int) -> None:
        if not main:
            return
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema": average.state_dict(),
            "step": done,
            "seconds": seconds,
            "schedule": asdict(schedule),
        }
        with replacing(path) as file:
            torch.save(state, file)

    model.train()
    generator = torch.Generator()
    last = saved = time.monotonic()
    steps = range(start, schedule.steps)
    bar = tqdm(steps, initial=start, total=schedule.steps, desc=name, mininterval=5, disable=not main)
    for index in bar:
        # Seeded anew for every step and process: resuming needs no random state, and no two processes see the same.
        terms = trained(generator.manual_seed((schedule.seed * 1_000_003 + index) * 64 + rank))
        loss = terms["loss"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: loss is {loss.item()} at step {index}; the last checkpoint is {path}")
        prepared.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, schedule.clip)
        prepared.step()
        rates.step()
        average.step(model.parameters())
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        if main and (index % log_every == 0 or index + 1 == schedule.steps):
            values = {key: round(value.item(), 6) for key, value in terms.items()}
            bar.set_postfix(values, refresh=False)
            with log_path.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": index, "seconds": round(seconds, 1), **values}) + "\n")
        if now - saved > schedule.checkpoint_seconds:
            save(index + 1)
            saved = now
    save(max(start, schedule.steps))
    accelerator.wait_for_everyone()  # before another process reads what the main one has written
    average.copy_to(model.parameters())
    return model.eval()
