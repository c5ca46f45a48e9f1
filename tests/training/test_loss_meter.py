from types import SimpleNamespace

import pytest
import torch

from spf_lite.method.dual_path import Term
from spf_lite.training.loss_meter import LossMeter, TrainingDivergedError

LAST = 1000


def term(values: list[float], applies: list[bool]) -> Term:
    return Term(torch.tensor(values), torch.tensor(applies))


def test_means_are_over_the_items_that_a_term_is_about() -> None:
    tally = LossMeter(["denoise", "text"], LAST)
    terms = {"denoise": term([1, 2, 60], [True, True, False]), "text": term([5, 5, 5], [False] * 3)}
    tally.add(0, terms, torch.tensor([0, 300, 900]))
    assert tally.means() == {"denoise": 1.5, "text": 0}
    tally.add(0, {"denoise": term([6], [True]), "text": term([4], [True])}, torch.tensor([300]))
    assert tally.means() == {"denoise": 3, "text": 4}, "over the parts, not a mean of their means"


def test_the_ranges_of_timesteps_are_equal_and_empty_ones_are_none() -> None:
    tally = LossMeter(["denoise"], LAST)
    edges = [0, 249, 250, 500, 999]
    tally.add(0, {"denoise": term([1, 3, 10, 20, 40], [True] * 4 + [False])}, torch.tensor(edges))
    assert tally.by_timestep() == {"denoise": [2, 10, 20, None]}


def test_cutting_a_batch_into_parts_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    values, timesteps = torch.rand(12, generator=generator), torch.randint(LAST, (12,), generator=generator)
    applies = torch.rand(12, generator=generator) < 0.6
    whole, parts = LossMeter(["fine"], LAST), LossMeter(["fine"], LAST)
    whole.add(0, {"fine": Term(values, applies)}, timesteps)
    for k in range(3):
        parts.add(0, {"fine": Term(values[k::3], applies[k::3])}, timesteps[k::3])
    assert parts.means() == pytest.approx(whole.means())
    assert parts.by_timestep()["fine"] == pytest.approx(whole.by_timestep()["fine"])
    assert whole.means()["fine"] == pytest.approx(values[applies].double().mean().item())


def test_what_is_not_finite_is_named_where_it_counts() -> None:
    tally = LossMeter(["denoise"], LAST)
    bad = term([1, float("nan"), float("inf"), 2], [True, False, True, True])
    with pytest.raises(TrainingDivergedError, match=r"^step 7: denoise is inf at t = \[30\]$"):
        tally.add(7, {"denoise": bad}, torch.tensor([10, 20, 30, 40]))
    harmless = term([1, float("nan")], [True, False])
    tally.add(8, {"denoise": harmless}, torch.tensor([10, 20]))
    assert tally.means() == {"denoise": 1}


def test_processes_add_up_what_they_have_seen() -> None:
    first, second = LossMeter(["denoise"], LAST), LossMeter(["denoise"], LAST)
    first.add(0, {"denoise": term([1], [True])}, torch.tensor([10]))
    second.add(0, {"denoise": term([3, 5], [True, True])}, torch.tensor([10, 900]))

    def reduce(sums: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return sums + second.sums

    def processes(count: int) -> SimpleNamespace:
        return SimpleNamespace(num_processes=count, device=torch.device("cpu"), reduce=reduce)

    first.reduce(processes(1))  # type: ignore[arg-type]
    assert first.means() == {"denoise": 1}, "alone there is nobody to ask"
    first.reduce(processes(2))  # type: ignore[arg-type]
    assert first.means() == {"denoise": 3}
    assert first.by_timestep() == {"denoise": [2, None, None, 5]}
