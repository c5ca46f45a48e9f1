"""Cost of the second path: time and peak memory of one training step, and of sampling.

The variants take turns in one process, round after round, so that other work on the machine affects all of them alike.
Results are medians over the rounds. Time is process CPU time with one thread (``OMP_NUM_THREADS=1``), which other work
hardly affects, and wall-clock time otherwise. Peak memory is the high-water mark of the whole process (Linux), Python
and libraries included, or of the GPU.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from diffusers import ModelMixin

from spf_lite.config import TrainConfig
from spf_lite.files import read_text
from spf_lite.method.attention import record
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.adapters.peft_layers import switch
from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.profiling.random_models import random_batch, random_sd15

logger = logging.getLogger(__name__)

#: The dual path without enhancement: text-consistent and fine-grained loss, and output alignment.
DUAL = TrainConfig(weight_text=1.0, weight_fine=1.0, weight_output=1.0)
#: The same with enhancement.
ENHANCED = replace(DUAL, weight_enhancement=1.0)


@dataclass(frozen=True)
class Cost:
    """Cost of one variant.

    Attributes:
        model: name of the model.
        variant: name of the variant.
        seconds: median time of one step, or of one call of the sampler.
        ratio: of ``seconds`` to those of the first variant in the same comparison.
        peak: median peak memory in MB (10^6 bytes); None: not measured.
        rounds: number of rounds.
    """

    model: str
    variant: str
    seconds: float
    ratio: float
    peak: float | None
    rounds: int

    def __str__(self) -> str:
        peak = "" if self.peak is None else f"{self.peak:8.0f} MB"
        return f"{self.model:<12} {self.variant:<28} {self.seconds:8.3f} s {self.ratio:6.2f} x {peak}"


def read_costs(file: Path) -> dict[str, Cost]:
    """Variant to its cost, from a file that ``spf-lite cost --save`` has written for one model."""
    return {row["variant"]: Cost(**row) for row in json.loads(read_text(file))}


class _TwoModels(Lora):
    """LoRA with a second network in memory as the reference: the textbook implementation."""

    def __init__(self, network: ModelMixin, other: ModelMixin) -> None:
        self.network, self.other = network, other
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    @contextmanager
    def _untouched(self) -> Iterator[ModelMixin]:
        yield self.other


def training_costs(backbone: Backbone, name: str, batch_size: int, rounds: int, steps: int) -> list[Cost]:
    """Costs of a training step: plain LoRA, dual path without and with enhancement, two models in memory.

    Args:
        backbone: gets a LoRA adapter, which stays.
        name: of the model, for the results.
        batch_size: portraits per step; the batch is random.
        rounds: timed rounds, after one of warm-up.
        steps: timed steps per variant and round.
    """
    network, device = backbone.network, backbone.device
    lora = Lora(network, rank=16, seed=0)
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
            other = copy.deepcopy(network).requires_grad_(False)
            switch(other, on=False)  # the reference must not contain what has been trained by now
            backbone.trainable = _TwoModels(network, other)
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
    return alternate(name, variants, one, forget, rounds, steps, device)


def sampling_costs(backbone: Backbone, name: str, portraits: int, rounds: int, steps: int) -> list[Cost]:
    """Costs of sampling, without and with recording cross-attention.

    Args:
        backbone: the model.
        name: of the model, for the results.
        portraits: number of portraits per call.
        rounds: timed rounds, after one of warm-up.
        steps: denoising steps.
    """
    network = backbone.network
    size = (network.config.sample_size, network.config.sample_size)

    def run(recording: AbstractContextManager[object]) -> None:
        with recording:
            sample(backbone, ["a person"] * portraits, seeds=range(portraits), steps=steps, output_type="latent")

    variants: dict[str, Callable[[], None]] = {
        "sampling": lambda: run(nullcontext()),
        "sampling, attention recorded": lambda: run(record(network, size, backbone.spec.attention_resolution)),
    }
    return alternate(name, variants, lambda variant: variant(), lambda: None, rounds, 1, backbone.device, memory=False)


def alternate(
    name: str,
    variants: dict[str, Callable[[], None]],
    one: Callable[[Callable[[], None]], None],
    forget: Callable[[], None],
    rounds: int,
    steps: int,
    device: torch.device,
    memory: bool = True,
) -> list[Cost]:
    """Time the variants in turns: ``one`` runs a step of a variant, ``forget`` ends a variant's turn."""
    times: dict[str, list[float]] = {label: [] for label in variants}
    peaks: dict[str, list[float]] = {label: [] for label in variants}
    for number in range(rounds + 1):  # round 0 is a warm-up: caches, memory, lazy initialisation
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
    """Seconds: process CPU time with one thread on a CPU, wall-clock time otherwise."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _release(device: torch.device) -> None:
    """Return free memory to the system, so that one variant's is not counted for the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif Path("/proc/self/clear_refs").exists():
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark


def _peak(device: torch.device) -> float:
    """Peak memory in MB since the last reset; nan where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure_costs(model: str, rounds: int) -> list[Cost]:
    """Costs of training and of sampling for one model.

    Args:
        model: ``tiny``, the shipped model, or ``sd15-size``: random weights, 64x64 latents, batch size 1.
        rounds: timed rounds of each variant.

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
    """One dictionary per variant, for a JSON file; ``Cost(**row)`` reads it back."""
    return [asdict(cost) for cost in costs]
