import copy
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from spf_lite.config import TrainConfig
from spf_lite.models.adapters.adalora import AdaLora
from spf_lite.training.loss_meter import TrainingDivergedError
from spf_lite.training.optimisation import Optimisation

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
