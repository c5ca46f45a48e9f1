"""A run of all stages that takes about a second, and ways to break it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data import encoding
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.method import control_map
from spf_lite.models.backbones import files
from spf_lite.models.running.sampling import sample
from spf_lite.training import stage2, step
from spf_lite.training.run import export
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy

CONFIG = TrainConfig(
    stage1_steps=2,
    stage2_steps=2,
    batch_size=2,
    rank=2,
    learning_rate=0.05,
    weight_text=1.0,
    weight_output=1.0,
    map_source="averaged",
    map_draws=1,
    reference_portraits=2,
    checkpoint_every=1,
)
#: Stage 1 alone.
NAIVE = replace(CONFIG, stage2_steps=0, weight_text=0.0, weight_output=0.0, reference_portraits=0, map_source="none")
#: Where each stage can be made to fail: module, function, and at which of its calls.
STAGES: dict[str, tuple[Any, str, int]] = {
    "stage 1": (step, "objective", 2),
    "sampling reference portraits": (encoding, "sample", 1),
    "making maps": (control_map, "averaged_maps", 2),
    "scaling terms": (stage2, "term_scales", 1),
    "stage 2": (step, "objective", 4),
    "export": (files, "save", 1),
    "model card": (export, "_card", 1),
}

Run = Callable[..., tuple[DualPathTrainer, dict[str, Tensor]]]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail_at(module: Any, name: str, call: int, failure: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Let one call of a function raise instead."""
    real, calls = getattr(module, name), 0

    def failing(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise failure
        return real(*arguments, **options)

    patch.setattr(module, name, failing)


def quickened(patch: pytest.MonkeyPatch) -> None:
    """One sampling step and one batch to scale the terms by."""
    patch.setattr(encoding, "sample", partial(sample, steps=1))
    patch.setattr(stage2, "SCALE_BATCHES", 1)


@pytest.fixture
def make(
    toy_folders: dict[str, Path], custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DualPathTrainer]:
    """A trainer on a fresh toy, by its output folder."""
    quickened(monkeypatch)

    def trainer(folder: Path | None, config: TrainConfig = CONFIG, **options: Any) -> DualPathTrainer:
        examples = options.pop("custom_set", custom_set)
        return DualPathTrainer(load_toy(toy_folders["v_prediction"]), examples, config, folder, **options)

    return trainer


@pytest.fixture
def run(make: Callable[..., DualPathTrainer]) -> Run:
    """Train in a folder, or go on there, and export; gives the trainer and its weights."""

    def whole(folder: Path, config: TrainConfig = CONFIG, **options: Any) -> tuple[DualPathTrainer, dict[str, Tensor]]:
        trainer = make(folder, config)
        trainer.fit(**{"resume": True, "progress": False, **options})
        trainer.export(folder / "adapter")
        return trainer, trainer.trained.state()

    return whole


@pytest.fixture(scope="session")
def whole(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    """The folder and the weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quickened(patch)
        trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, CONFIG, folder)
        trainer.fit(progress=False)
        trainer.export(folder / "adapter")
    return folder, trainer.trained.state()


def same(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Equal to the last bit."""
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


class Stopped(Exception):
    pass


def stop_at(number: int, error: BaseException | None = None) -> Callable[[int, object], None]:
    def stop(step: int, control: object) -> None:
        if step == number:
            raise error or Stopped

    return stop
