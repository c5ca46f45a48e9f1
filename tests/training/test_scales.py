from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.draws import Draw
from spf_lite.method.dual_path import Step
from spf_lite.method.losses import Term
from spf_lite.training.scales import term_scales

CONFIG = TrainConfig(weight_text=0.25, weight_output=3.0)
ALONE = SimpleNamespace(num_processes=1)


def piece(timesteps: list[int]) -> Draw:
    return Draw([], [], torch.zeros(0), torch.tensor(timesteps))


def scales(sizes: dict[str, list[float]], config: TrainConfig = CONFIG) -> dict[str, float]:
    """From the value of each term in each of several pieces."""
    steps = [
        Step({name: Term(torch.tensor([values[k]]), torch.tensor([True])) for name, values in sizes.items()})
        for k in range(len(next(iter(sizes.values()))))
    ]

    def run(drawn: Draw) -> AbstractContextManager[Step]:
        return nullcontext(steps[int(drawn.timesteps[0])])

    return term_scales(config, map(piece, ([k] for k in range(len(steps)))), run, 1000, ALONE)


def test_every_term_is_brought_to_the_size_of_denoising() -> None:
    sizes = {"denoise": [0.2, 0.6], "text": [1e-4, 3e-4], "output": [30.0, 50.0]}
    found = scales(sizes)
    assert found == pytest.approx({"denoise": 1, "text": 2000, "output": 0.01})
    for name, values in sizes.items():
        assert found[name] * sum(values) / 2 == pytest.approx(0.4), name


def test_weights_do_not_change_the_scales() -> None:
    sizes = {"denoise": [0.5], "text": [0.01], "output": [2.0]}
    assert scales(sizes) == scales(sizes, TrainConfig(weight_denoise=9.0, weight_text=7.0, weight_output=0.1))


def test_a_term_that_is_nothing_yet_is_not_blown_up() -> None:
    assert scales({"denoise": [0.5], "text": [0.0], "output": [1e-12]}) == {"denoise": 1, "text": 1, "output": 1}


def test_without_denoising_the_unit_is_one() -> None:
    config = TrainConfig(weight_denoise=0.0, weight_output=1.0)
    assert scales({"output": [4.0]}, config) == {"output": 0.25}
