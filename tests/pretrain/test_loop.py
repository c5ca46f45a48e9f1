import json
from pathlib import Path

import pytest
import torch
from torch import nn

from spf_lite.pretrain.loop import Schedule, fit


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def step(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    assert isinstance(model, Line)
    inputs = torch.randn(16, 3, generator=generator)
    return {"loss": ((inputs @ model.weight - inputs @ torch.tensor([1.0, -2.0, 0.5])) ** 2).mean()}


def schedule(steps: int) -> Schedule:
    return Schedule(steps, learning_rate=0.05, warmup=5, decay=20, ema=0.9, weight_decay=0.0, checkpoint_seconds=0.0)


class Killed(Exception):
    pass


def test_it_learns_and_logs(tmp_path: Path) -> None:
    model = fit("line", Line(), step, schedule(300), tmp_path, log_every=10)
    assert isinstance(model, Line)
    assert torch.allclose(model.weight, torch.tensor([1.0, -2.0, 0.5]), atol=0.05)
    log = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 299 and log[-1]["loss"] < log[0]["loss"] / 100


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fit("line", Line(), step, schedule(60), tmp_path / "whole")
    calls = 0

    def dying(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 31:
            raise Killed
        return step(model, generator)

    with pytest.raises(Killed):
        fit("line", Line(), dying, schedule(60), tmp_path / "parts")
    resumed = fit("line", Line(), step, schedule(60), tmp_path / "parts")
    assert torch.equal(whole.weight, resumed.weight)  # type: ignore[arg-type]


def test_a_finished_run_can_be_prolonged(tmp_path: Path) -> None:
    fit("line", Line(), step, schedule(40), tmp_path)
    longer = fit("line", Line(), step, schedule(300), tmp_path)
    assert torch.allclose(longer.weight, torch.tensor([1.0, -2.0, 0.5]), atol=0.05)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    fit("line", Line(), step, schedule(10), tmp_path)
    before = (tmp_path / "line.pt").read_bytes()

    def broken(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"loss": step(model, generator)["loss"] * float("nan")}

    with pytest.raises(FloatingPointError, match="line: loss is nan at step 10"):
        fit("line", Line(), broken, schedule(20), tmp_path)
    assert (tmp_path / "line.pt").read_bytes() == before


def test_the_schedule_rises_stays_and_falls() -> None:
    plan = Schedule(1000, warmup=100, decay=200)
    assert plan.factor(0) == pytest.approx(0.01)
    assert plan.factor(500) == 1.0
    assert plan.factor(900) == pytest.approx(0.5)
    assert plan.factor(999) < 0.01
