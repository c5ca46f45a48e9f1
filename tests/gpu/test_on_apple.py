"""Apple's ``mps``: it is chosen where there is no CUDA card, and no tensor of 64-bit floats is made on it.

A simulated device stands in for it, which like ``mps`` has no float64. Nothing here ran on Apple's hardware.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from spf_lite.config import TrainConfig
from spf_lite.data import encoding
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.measuring import measure_on, sample_evaluation_set
from spf_lite.models.backbone import Backbone, best_device
from spf_lite.models.loading.compatibility import check_precision
from spf_lite.models.running.sampling import sample
from spf_lite.pure_pairs import reading, repaint
from spf_lite.training import stage2
from spf_lite.training.recipes import recipe
from spf_lite.training.trainer import DualPathTrainer
from spf_lite.widgets.explorer_data import attention_items

from ..conftest import load_toy
from .pretend_gpu import PretendGpu, _tensors, is_on_cuda


class WithoutDoubles(PretendGpu):
    """A device that refuses float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if any(tensor.dtype == torch.float64 and is_on_cuda(tensor) for tensor in _tensors(result)):
            raise TypeError("the MPS framework doesn't support float64. Please use float32 instead.")
        return result


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_best_device_is_cuda_then_mps_then_the_cpu(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert best_device().type == expected
    assert best_device().index == (2 if expected == "cuda" else None)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if expected != "cpu":
            check_precision(best_device(), dtype)


@pytest.fixture
def apple() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    with WithoutDoubles():
        yield
    AcceleratorState._reset_state(True)


def test_the_simulated_device_has_no_doubles(apple: None) -> None:
    assert (torch.ones(2, device="cuda") * 2).cpu().double().dtype == torch.float64
    for make in (
        lambda: torch.ones(2, device="cuda", dtype=torch.float64),
        lambda: torch.ones(2, device="cuda").double(),
        lambda: torch.ones(2, dtype=torch.float64).to("cuda"),
    ):
        with pytest.raises(TypeError, match="doesn't support float64"):
            make()


@pytest.mark.parametrize("name", ["paper-weights", "spf", "pure-pairs", "purecc,trainable=adalora"])
def test_a_run_has_no_doubles_on_the_device(
    name: str, apple: None, toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(stage2, "SCALE_BATCHES", 1)
    monkeypatch.setattr(encoding, "sample", partial(sample, steps=1))
    monkeypatch.setattr(repaint, "STEPS", 1)
    monkeypatch.setattr(reading, "DRAWS", (1, 1))
    full: TrainConfig = recipe(name)
    config = replace(
        full,
        stage1_steps=min(1, full.stage1_steps),
        stage2_steps=min(2, full.stage2_steps),
        reference_portraits=min(2, full.reference_portraits),
        batch_size=2,
        rank=2,
        pure_pairs=min(1, full.pure_pairs),
        map_draws=1,
    )
    few = replace(custom_set, examples=custom_set.examples[:3])
    trainer = DualPathTrainer(load_toy(toy_folders["epsilon"]), few, config)
    trainer.fit(progress=False)
    trainer.export(tmp_path)


def test_measuring_has_no_doubles_on_the_device(apple: None, toy: Backbone) -> None:
    evaluation_set = sample_evaluation_set(toy, "sunglasses", 1, steps=1)
    assert "CLIP-T" in measure_on(toy, Judge(JudgeNet(width=8)), [evaluation_set]).estimates()
    assert attention_items(toy, ["a person"], [0], [100])
