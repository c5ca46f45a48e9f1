import json
import os
import socket
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from spf_lite.pretrain import loop
from spf_lite.pretrain.loop import Schedule, fit, process_state
from tests.processes import ended_well, one_of, started

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def step(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    assert isinstance(model, Line)
    inputs = torch.randn(16, 3, generator=generator)
    return {"loss": ((inputs @ model.weight - inputs @ torch.tensor([1.0, -2.0, 0.5])) ** 2).mean()}


def schedule(steps: int) -> Schedule:
    return Schedule(
        steps, learning_rate=0.05, warmup=5, decay=20, ema=0.9, weight_decay=0.0, checkpoint_seconds=0.0, bfloat16=False
    )


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


def test_the_optimiser_follows_the_schedule_also_when_a_run_is_prolonged(tmp_path: Path) -> None:
    seen: list[float] = []

    def constant_gradient(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Adam turns a constant gradient into steps of one learning rate each."""
        assert isinstance(model, Line)
        seen.append(model.weight[0].item())
        return {"loss": -model.weight.sum()}

    short, longer = schedule(40), schedule(60)
    fit("line", Line(), constant_gradient, short, tmp_path)
    fit("line", Line(), constant_gradient, longer, tmp_path)
    moves = [after - before for before, after in zip(seen, seen[1:], strict=False)]
    expected = [short.factor(step) for step in range(40)] + [longer.factor(step) for step in range(40, 59)]
    assert moves == pytest.approx([0.05 * factor for factor in expected], rel=1e-3)


def test_the_weights_are_averaged_with_a_decay_that_rises_to_its_limit(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def watched(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(model, Line)
        seen.append(model.weight.detach().clone())
        return step(model, generator)

    # The learning rate of the last two steps is next to nothing, so the weights after the last are those before it.
    plan = Schedule(30, learning_rate=0.05, warmup=1, decay=1, ema=0.6, weight_decay=0.0)
    model = fit("line", Line(), watched, plan, tmp_path)
    assert isinstance(model, Line)
    last = torch.load(tmp_path / "line.pt", weights_only=True)["model"]["weight"]
    average = seen[0]
    for index, weights in enumerate([*seen[1:], last]):
        decay = min(0.6, (1 + index) / (10 + index)) if index else 0.0
        average = decay * average + (1 - decay) * weights
    assert torch.allclose(model.weight, average, atol=1e-6) and not torch.allclose(model.weight, last, atol=1e-4)


@pytest.mark.parametrize(("wanted", "had"), [(True, True), (True, False), (False, True)])
def test_a_step_runs_under_autocast_where_schedule_and_processor_allow_it(
    tmp_path: Path, wanted: bool, had: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "has_bfloat16", lambda: had)
    seen: set[torch.dtype] = set()

    def multiplied(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(model, Line)
        product = torch.randn(4, 3, generator=generator) @ model.weight[:, None]
        seen.add(product.dtype)
        return {"loss": product.square().mean()}

    model = fit("line", Line(), multiplied, Schedule(2, bfloat16=wanted), tmp_path)
    assert seen == {torch.bfloat16 if wanted and had else torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    model = Line()
    model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    before = model.weight.detach().clone()
    fit("line", model, step, schedule(5), tmp_path)
    assert torch.equal(model.frozen, torch.ones(2)) and not torch.equal(model.weight, before)


@pytest.mark.parametrize("torn", ['{"step": 9, "lo', '{"step": 9, "loss": 1.0}'])
def test_a_partially_written_line_of_the_log_is_dropped(tmp_path: Path, torn: str) -> None:
    fit("line", Line(), step, schedule(10), tmp_path, log_every=5)
    with (tmp_path / "line.jsonl").open("a") as log:
        log.write(torn)
    fit("line", Line(), step, schedule(20), tmp_path, log_every=5)
    lines = [json.loads(line)["step"] for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert lines == [0, 5, 9, 10, 15, 19]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("line", Line(), step, schedule(10), tmp_path)
    before = (tmp_path / "line.pt").read_bytes()

    def full_disk(state: object, file: BinaryIO) -> None:
        file.write(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        fit("line", Line(), step, schedule(20), tmp_path)
    assert (tmp_path / "line.pt").read_bytes() == before


def test_a_checkpoint_of_another_format_is_refused_and_kept(tmp_path: Path) -> None:
    old: dict[str, Any] = {"model": Line().state_dict(), "optimizer": {}, "average": {}, "step": 3, "seconds": 1.0}
    torch.save(old, tmp_path / "line.pt")
    before = (tmp_path / "line.pt").read_bytes()
    with pytest.raises(ValueError, match=r"line\.pt lacks ema: it is no checkpoint of this version; move it away"):
        fit("line", Line(), step, schedule(10), tmp_path)
    assert (tmp_path / "line.pt").read_bytes() == before


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """A process has its own inputs and half of the batch, and keeps the weights that it ends with."""
    os.environ |= one_of(2, rank, port)
    model = Line()
    model.unused = nn.Parameter(torch.ones(2))  # as the encoder of an AutoencoderTiny
    fit("line", model, step, schedule(20), folder)
    torch.save(model.weight.detach(), folder / f"weight-{process_state().process_index}.pt")
    assert process_state().num_processes == 2


def test_two_processes_learn_from_the_mean_of_their_gradients(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    said = tmp_path / "said"
    for process in [started(one_of_two, rank, port, tmp_path, output=said) for rank in (0, 1)]:
        ended_well(process, said)
    first, second = (torch.load(tmp_path / f"weight-{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)
    assert len((tmp_path / "line.jsonl").read_text().splitlines()) == 2, "only one of them writes the log"

    def both(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
        seed = generator.initial_seed()
        losses = [step(model, torch.Generator().manual_seed(seed + rank))["loss"] for rank in (0, 1)]
        return {"loss": torch.stack(losses).mean()}

    alone = fit("line", Line(), both, schedule(20), tmp_path / "alone")
    assert isinstance(alone, Line)
    assert torch.allclose(first, alone.weight, atol=1e-6)
