"""Kill -9 at random moments of each stage, as a program: ``python kill_driver.py TOY CUSTOM WORK KILLS``.

Each life is a forked child: nothing is imported or loaded twice. A child kills itself with SIGKILL at a random one of
the Python calls that its stage makes, so that every moment is as likely as another, and a seed gives the same moments
again. A line for each stage says what came of it; the exit status is 1 if anything differs.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file

from spf_lite.config import TrainConfig
from spf_lite.data import encoding
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.training import stage2, trainer
from spf_lite.training.run.export import add_measures
from spf_lite.training.trainer import DualPathTrainer

CONFIG = TrainConfig(
    stage1_steps=2,
    stage2_steps=2,
    batch_size=2,
    rank=2,
    learning_rate=0.05,
    weight_output=1.0,
    map_source="averaged",
    map_draws=2,
    reference_portraits=2,
)
#: The function that is each stage: module and name.
STAGES: dict[str, tuple[Any, str]] = {
    "sampling": (stage2, "reference_latents"),
    "maps": (stage2, "with_averaged_maps"),
    "stage1": (DualPathTrainer, "_one_step"),
    "export": (trainer, "write_adapter"),
    "card": (sys.modules[__name__], "add_measures"),
}
MEASURES = {"flip rate": "0.250 [0.200, 0.300]"}


class Clock:
    """Counts the Python calls inside a stage, and kills at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.count = fatal, 0

    def tick(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            sys.setprofile(self.tick)
            try:
                return function(*arguments, **options)
            finally:
                sys.setprofile(None)

        return timed


def life(backbone: Backbone, custom_set: CustomSet, folder: Path, stage: str, fatal: int | None) -> int:
    """Train in a folder or go on there, export, and write the measures into the card; returns the stage's calls."""
    clock = Clock(fatal)
    module, name = STAGES[stage]
    setattr(module, name, clock.around(getattr(module, name)))
    run = DualPathTrainer(backbone, custom_set, CONFIG, folder)
    run.fit(resume=True, progress=False)
    run.export(folder / "adapter")
    add_measures(folder / "adapter", MEASURES)
    return clock.count


def forked(work: Callable[[], int], note: Path) -> int:
    """Run in a child; returns the number of the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            note.write_text(str(work()))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise SystemExit("a life that nobody ended ended with an error")
    return 0


def results(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Weights, and every other file that says something of the run."""
    weights = {name: value.numpy().tobytes() for name, value in load_file(folder / "adapter" / ADAPTER_FILE).items()}
    others = ("log.jsonl", "run.json", "adapter/README.md", "adapter/config.json", "adapter/measures.json")
    return weights, {name: (folder / name).read_bytes() for name in others}


def main(toy: str, custom: str, work: str, kills: str) -> int:
    torch.set_num_threads(1)
    setattr(encoding, "sample", partial(sample, steps=3))  # noqa: B010 (a quicker sampler, for all lives)
    stage2.SCALE_BATCHES = 1
    backbone, custom_set = load(toy), CustomSet.load(custom)
    backbone.clip  # noqa: B018 (loaded once, before the first fork)
    return max([killed_in(stage, backbone, custom_set, Path(work) / stage, int(kills)) for stage in STAGES])


def killed_in(stage: str, backbone: Backbone, custom_set: CustomSet, work: Path, kills: int) -> int:
    """Kill lives in a stage and let the last one end; returns 0 if its results are those of an undisturbed one."""
    work.mkdir()
    whole, parts, note = work / "whole", work / "parts", work / "note"
    forked(partial(life, backbone, custom_set, whole, stage, None), note)
    calls = int(note.read_text())
    rng, killed = random.Random(stage), 0
    for _ in range(kills):
        fatal = rng.randrange(1, calls // (2 if stage == "stage1" else 1) + 1)
        killed += forked(partial(life, backbone, custom_set, parts, stage, fatal), note) == signal.SIGKILL
    forked(partial(life, backbone, custom_set, parts, stage, None), note)
    equal = results(parts) == results(whole)
    sys.stdout.write(f"{stage}: {killed} kills in {calls} calls, weights {'equal' if equal else 'DIFFER'}\n")
    return 0 if equal and killed >= (kills + 1) // 2 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
