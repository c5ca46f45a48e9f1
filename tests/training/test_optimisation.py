import copy
import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.adalora import AdaLora
from spf_lite.paths import DATA_SAMPLES
from spf_lite.training.loss_meter import TrainingDivergedError
from spf_lite.training.optimisation import Optimisation, adam_of
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy

CONFIG = TrainConfig(stage1_steps=9, stage2_steps=0, rank=2)


class Weight:
    """One trained parameter; notes after which steps it was told of a gradient."""

    def __init__(self) -> None:
        self.parameters = [nn.Parameter(torch.ones(2))]
        self.told: list[int] = []

    def after_backward(self, step: int) -> None:
        gradient = self.parameters[0].grad
        assert gradient is not None and gradient.isfinite().all(), "it learns from the gradient"
        self.told.append(step)


def optimisation(weight: Weight, scaled: bool) -> Optimisation:
    accelerator = Accelerator(cpu=True)
    if scaled:  # what accelerate makes for fp16 on a graphics card
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return Optimisation(weight, CONFIG, accelerator)  # type: ignore[arg-type]


def backward(made: Optimisation, factor: float) -> None:
    made.optimizer.zero_grad(set_to_none=True)
    made.accelerator.backward((made.trained.parameters[0] * factor).sum())


def test_a_skipped_step_moves_nothing_and_teaches_nothing(fresh_accelerate: None) -> None:
    weight = Weight()
    made = optimisation(weight, scaled=True)
    for step, factor in enumerate((1.0, math.inf, 1.0)):
        before = weight.parameters[0].detach().clone()
        backward(made, factor)
        made.update(step, [10])
        made.done()
        assert torch.equal(weight.parameters[0], before) is math.isinf(factor)
    assert weight.told == [0, 2]


def test_a_gradient_that_is_not_finite_at_any_scale_ends_training(fresh_accelerate: None) -> None:
    made = optimisation(Weight(), scaled=True)
    with pytest.raises(TrainingDivergedError, match=r"the gradient is not finite at any scale, at t = \[10\]"):
        for step in range(5):
            backward(made, math.nan)
            made.update(step, [10])


def test_without_a_scaler_it_ends_training_at_once_and_moves_nothing(fresh_accelerate: None) -> None:
    weight = Weight()
    made = optimisation(weight, scaled=False)
    backward(made, math.inf)
    with pytest.raises(TrainingDivergedError, match=r"step 7: the gradient is nan at t = \[3, 4\]|is inf at t"):
        made.update(7, [3, 4])
    assert torch.equal(weight.parameters[0], torch.ones(2)) and not weight.told and not made.updating


def test_adaptive_ranks_are_not_fed_infinite_gradients(toy_folders: dict[str, Path], fresh_accelerate: None) -> None:
    unet = load_toy(toy_folders["v_prediction"]).pipe.unet
    trained = AdaLora(unet, rank=2, seed=0, steps=9)
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    made = Optimisation(trained, CONFIG, accelerator)
    for step, factor in enumerate((1.0, math.inf, 1.0, 1.0)):
        made.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(torch.stack([(p * factor).sum() for p in trained.parameters]).sum())
        made.update(step, [10])
    for importances in (trained.allocator.ipt, trained.allocator.exp_avg_ipt, trained.allocator.exp_avg_unc):
        assert importances and all(value.isfinite().all() for value in importances.values())


def test_its_state_is_taken_up(fresh_accelerate: None) -> None:
    first, second = Weight(), Weight()
    made, again = optimisation(first, scaled=True), optimisation(second, scaled=True)
    backward(made, 1.0)
    made.update(0, [10])
    with torch.no_grad():
        second.parameters[0].copy_(first.parameters[0])
    again.load_state_dict(copy.deepcopy(made.state_dict()))
    for one in (made, again):
        backward(one, -2.0)
        one.update(1, [10])
    assert torch.equal(first.parameters[0], second.parameters[0])
    assert made.state_dict()["scaler"] == again.state_dict()["scaler"] and made.learning_rate == again.learning_rate


def test_older_configurations_are_of_the_usual_optimiser() -> None:
    paths = sorted(DATA_SAMPLES.glob("adapters/*/*/config.json"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert TrainConfig.from_json(text).optimizer == json.loads(text).get("optimizer", "adamw") == "adamw"
    with pytest.raises(ValueError, match="optimizer='sgd': expected one of adamw, adamw8bit"):
        TrainConfig(optimizer="sgd")


def test_the_usual_optimiser_is_pytorchs_and_needs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)  # importing it fails
    weight = nn.Parameter(torch.ones(2))
    adam = adam_of([weight], CONFIG)
    assert type(adam) is torch.optim.AdamW and adam.defaults["weight_decay"] == 0
    with pytest.raises(ValueError, match=r"needs bitsandbytes.*pip install 'spf-lite\[8bit\]'"):
        adam_of([weight], replace(CONFIG, optimizer="adamw8bit"))


def test_the_optimiser_of_8_bits_gets_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub(torch.optim.AdamW):
        pass

    module = types.ModuleType("bitsandbytes.optim")
    module.AdamW8bit = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    adam = adam_of([nn.Parameter(torch.ones(2))], replace(CONFIG, optimizer="adamw8bit", learning_rate=0.25))
    assert type(adam) is Stub and adam.defaults["lr"] == 0.25 and adam.defaults["weight_decay"] == 0


def test_a_run_with_moments_of_8_bits_resumes_exactly(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    config = TrainConfig(
        stage1_steps=4, stage2_steps=0, batch_size=2, rank=256, checkpoint_every=1, optimizer="adamw8bit"
    )

    def trainer(folder: Path | None = None) -> DualPathTrainer:
        return DualPathTrainer(load_toy(toy_folders["epsilon"]), custom_set, config, folder)

    whole = trainer()
    history = whole.fit(progress=False).history
    moments = [state["state1"].dtype for state in whole.optimisation.optimizer.optimizer.state.values()]
    assert torch.uint8 in moments, "large tensors have moments of 8 bits"

    def interrupt(step: int, _: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).fit(progress=False, on_step=interrupt)
    resumed = trainer(tmp_path)
    assert [line["loss"] for line in resumed.fit(resume=True, progress=False).history] == [
        line["loss"] for line in history
    ]
    for name, value in whole.trained.state().items():
        assert torch.equal(value, resumed.trained.state()[name]), name
    usual = DualPathTrainer(load_toy(toy_folders["epsilon"]), custom_set, replace(config, optimizer="adamw"))
    losses = [line["loss"] for line in usual.fit(progress=False).history]
    assert losses[0] == history[0]["loss"] and losses != [line["loss"] for line in history]
