"""What the second path costs: time and peak memory of one training step, and of sampling, measured side by side.

Variants take turns, round after round, in one process, so that whatever else the machine does falls on all of them; the
figures are medians over the rounds. With one thread (``OMP_NUM_THREADS=1``) what is measured is the time that the
processor has worked for this process, which other work hardly touches; otherwise it is the clock on the wall. Peak
memory is the high-water mark of the whole process (Linux), Python and libraries included, or of the graphics card.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from diffusers import UNet2DConditionModel

from spf_lite.config import TrainConfig
from spf_lite.method.attention import record
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.sampling import sample
from spf_lite.models.trainable import Lora
from spf_lite.profiling.random_models import random_batch, random_sd15

logger = logging.getLogger(__name__)

#: Both losses of the layers and output alignment: everything but enhancement.
DUAL = TrainConfig(weight_text=1.0, weight_fine=1.0, weight_output=1.0)
#: With it.
ENHANCED = replace(DUAL, weight_enhancement=1.0)


@dataclass(frozen=True)
class Cost:
    """One variant: median seconds, ratio to the first of its kind, and peak memory in MB (None: not measured)."""

    model: str
    variant: str
    seconds: float
    ratio: float
    peak: float | None
    rounds: int

    def __str__(self) -> str:
        peak = "" if self.peak is None else f"{self.peak:8.0f} MB"
        return f"{self.model:<12} {self.variant:<28} {self.seconds:8.3f} s {self.ratio:6.2f} x {peak}"


class _TwoModels(Lora):
    """The textbook's way: a second UNet in memory is the reference."""

    def __init__(self, unet: UNet2DConditionModel, other: UNet2DConditionModel) -> None:
        self.unet, self.other = unet, other
        self.parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]

    @contextmanager
    def _untouched(self) -> Iterator[UNet2DConditionModel]:
        yield self.other


def training_costs(backbone: Backbone, name: str, batch_size: int, rounds: int, steps: int) -> list[Cost]:
    """(a) plain LoRA fine-tuning, (b) dual path without and (c) with enhancement, (d) two models in memory."""
    unet, device = backbone.pipe.unet, torch.device(backbone.pipe.device)
    lora = Lora(unet, rank=16, seed=0)
    optimizer = torch.optim.AdamW(lora.parameters, lr=1e-5)
    batch = random_batch(backbone, batch_size)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1)).to(device)
    # Spread over all timesteps (a single one lies in the middle): enhancement trusts the lower seven tenths of them.
    timesteps = ((torch.arange(batch_size) + 0.5) / batch_size * 1000).long().to(device)

    def plain() -> None:
        naive_step(backbone, batch, noise, timesteps).terms["denoise"].mean().backward()

    def dual(config: TrainConfig) -> None:
        with dual_path_step(backbone, batch, noise, timesteps, config) as step:
            torch.stack([term.mean() for term in step.terms.values()]).sum().backward()

    def two_models() -> None:
        # The copy is made in the warm-up and lives as long as its variant's turn.
        if not isinstance(backbone.trainable, _TwoModels):
            other = copy.deepcopy(unet).requires_grad_(False)
            other.disable_adapters()  # it is the reference: what has been trained by now is not in it
            backbone.trainable = _TwoModels(unet, other)
        dual(DUAL)

    variants: dict[str, Callable[[], None]] = {
        "(a) plain LoRA": plain,
        "(b) dual path": lambda: dual(DUAL),
        "(c) dual path, enhancement": lambda: dual(ENHANCED),
        "(d) two models": two_models,
    }

    def one(variant: Callable[[], None]) -> None:
        optimizer.zero_grad(set_to_none=True)
        variant()
        optimizer.step()

    def forget() -> None:
        optimizer.zero_grad(set_to_none=True)
        backbone.trainable = lora

    forget()
    return _alternate(name, variants, one, forget, rounds, steps, device)


def sampling_costs(backbone: Backbone, name: str, portraits: int, rounds: int, steps: int) -> list[Cost]:
    """Sampling with and without recording the cross-attention of one resolution."""
    unet = backbone.pipe.unet
    size = (unet.config.sample_size, unet.config.sample_size)

    def draw(listening: AbstractContextManager[object]) -> None:
        with listening:
            sample(backbone, ["a person"] * portraits, seeds=range(portraits), steps=steps, output_type="latent")

    variants: dict[str, Callable[[], None]] = {
        "sampling": lambda: draw(nullcontext()),
        "sampling, attention recorded": lambda: draw(record(unet, size, backbone.spec.attention_resolution)),
    }
    device = torch.device(backbone.pipe.device)
    return _alternate(name, variants, lambda variant: variant(), lambda: None, rounds, 1, device, memory=False)


def _alternate(
    name: str,
    variants: dict[str, Callable[[], None]],
    one: Callable[[Callable[[], None]], None],
    forget: Callable[[], None],
    rounds: int,
    steps: int,
    device: torch.device,
    memory: bool = True,
) -> list[Cost]:
    times: dict[str, list[float]] = {label: [] for label in variants}
    peaks: dict[str, list[float]] = {label: [] for label in variants}
    for number in range(rounds + 1):  # round 0 warms up: caches, memory, lazily made things
        for label, variant in variants.items():
            _release(device)
            _reset_peak(device)
            one(variant)
            began = _now(device)
            for _ in range(steps):
                one(variant)
            seconds = (_now(device) - began) / steps
            if number:
                times[label].append(seconds)
                peaks[label].append(_peak(device))
            forget()
            logger.info("%s, round %d, %s: %.3f s", name, number, label, seconds)
    first = median(next(iter(times.values())))
    return [
        Cost(name, label, median(times[label]), median(times[label]) / first, median(peaks[label]) if memory else None,
             rounds)
        for label in variants
    ]  # fmt: skip


def _now(device: torch.device) -> float:
    """Seconds. With one thread on a processor those that it has worked for us: other work on the machine counts not."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _release(device: torch.device) -> None:
    """Give back what nobody uses, so that one variant's leftovers are not counted for the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif Path("/proc/self/clear_refs").exists():
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark


def _peak(device: torch.device) -> float:
    """MB; nan where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure_costs(model: str, rounds: int) -> list[Cost]:
    """All variants for ``tiny`` or ``sd15-size`` (random weights, 64x64 latents, batch 1).

    Raises:
        ValueError: for another model, or no rounds.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    if model == "tiny":
        return [
            *training_costs(load("tiny"), model, batch_size=8, rounds=rounds, steps=5),
            *sampling_costs(load("tiny"), model, portraits=8, rounds=rounds, steps=10),
        ]
    if model == "sd15-size":
        backbone = random_sd15(load("tiny"))
        sampled = sampling_costs(backbone, model, portraits=1, rounds=rounds, steps=1)
        return [*training_costs(backbone, model, batch_size=1, rounds=rounds, steps=1), *sampled]
    raise ValueError(f"model={model!r}: expected tiny or sd15-size")


def to_rows(costs: list[Cost]) -> list[dict[str, object]]:
    """For a JSON file."""
    return [asdict(cost) for cost in costs]
