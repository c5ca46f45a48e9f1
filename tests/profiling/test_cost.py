import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch
from spf_lite.method.dual_path import Step, dual_path_step
from spf_lite.models.adapters.lora import adapters_off
from spf_lite.models.backbone import Backbone
from spf_lite.profiling import cost
from spf_lite.profiling.cost import Cost, measure_costs, read_costs, to_rows, training_costs

TRAINING = ["(a) plain LoRA", "(b) dual path", "(c) dual path, enhancement", "(d) two models"]
SAMPLING = ["sampling", "sampling, attention recorded"]


@pytest.fixture(scope="module")
def costs(toy_folders: dict[str, Path]) -> Iterator[list[Cost]]:
    """One round of everything on the toy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPF_LITE_TINY", str(toy_folders["v_prediction"]))
        yield measure_costs("tiny", rounds=1)


def test_every_variant_is_timed(costs: list[Cost]) -> None:
    assert [line.variant for line in costs] == TRAINING + SAMPLING
    assert {line.model for line in costs} == {"tiny"} and {line.rounds for line in costs} == {1}
    assert all(line.seconds > 0 for line in costs)


def test_costs_are_read_back_by_their_variants(costs: list[Cost], tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text(json.dumps(to_rows(costs)))
    assert read_costs(tmp_path / "costs.json") == {line.variant: line for line in costs}


def test_ratios_are_to_the_first_of_a_kind(costs: list[Cost]) -> None:
    for kind in (costs[:4], costs[4:]):
        assert kind[0].ratio == 1
        for line in kind:
            assert line.ratio == pytest.approx(line.seconds / kind[0].seconds)
    assert costs[1].ratio > 1, "two passes are more than one"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the high-water mark is Linux's")
def test_peak_memory_is_measured_for_training_alone(costs: list[Cost]) -> None:
    assert all(line.peak is not None and line.peak > 50 for line in costs[:4]), "PyTorch alone is more"
    assert [line.peak for line in costs[4:]] == [None, None]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark is Linux's")
def test_the_high_water_mark_rises_and_is_reset() -> None:
    device = torch.device("cpu")
    cost._reset_peak(device)
    before = cost._peak(device)
    torch.ones(25_000_000).sum()  # 100 MB
    assert cost._peak(device) - before > 80
    cost._release(device)
    cost._reset_peak(device)
    assert cost._peak(device) - before < 50


def test_a_line_and_a_row_give_the_same_figures() -> None:
    lines = [Cost("tiny", "(a)", 0.5, 1.0, 123.4, 2), Cost("tiny", "sampling", 1.25, 2.5, None, 2)]
    assert str(lines[0]).split() == ["tiny", "(a)", "0.500", "s", "1.00", "x", "123", "MB"]
    assert str(lines[1]).split() == ["tiny", "sampling", "1.250", "s", "2.50", "x"]
    assert [Cost(**row) for row in to_rows(lines)] == lines  # type: ignore[arg-type]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="model='sd15': expected tiny or sd15-size"):
        measure_costs("sd15", rounds=1)
    for rounds in (0, -1):
        with pytest.raises(ValueError, match=f"rounds={rounds}: at least one is needed"):
            measure_costs("tiny", rounds)


def test_two_models_are_another_unet_with_the_same_losses(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    others = set()

    def both_ways(
        backbone: Backbone, batch: Batch, noise: torch.Tensor, timesteps: torch.Tensor, config: TrainConfig
    ) -> AbstractContextManager[Step]:
        own = backbone.trainable
        assert own is not None
        with torch.no_grad():
            for parameter in own.parameters:
                parameter.fill_(0.2)  # an adapter that changes predictions
        if isinstance(own, cost._TwoModels):
            others.add(own.other)
            assert not {id(p) for p in own.other.parameters()} & {id(p) for p in backbone.pipe.unet.parameters()}
            found = []
            for reference in (own.reference, lambda: adapters_off(backbone.pipe.unet)):
                monkeypatch.setattr(type(backbone), "reference", lambda self, reference=reference: reference())
                with torch.no_grad(), dual_path_step(backbone, batch, noise, timesteps, config) as step:
                    found.append({name: term.mean().item() for name, term in step.terms.items()})
            pairs.append((found[0], found[1]))
            monkeypatch.setattr(type(backbone), "reference", lambda self: self.trainable.reference())
        return dual_path_step(backbone, batch, noise, timesteps, config)

    monkeypatch.setattr(cost, "dual_path_step", both_ways)
    training_costs(toy, "toy", batch_size=2, rounds=1, steps=1)
    assert len(others) == 2, "made anew for each of two turns"
    assert len(pairs) == 4
    for two, one in pairs:
        assert set(two) == {"denoise", "text", "fine", "output"}
        assert two == pytest.approx(one, rel=1e-4) and two["output"] > 1e-6
