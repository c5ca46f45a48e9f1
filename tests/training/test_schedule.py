from math import cos, pi

import pytest
import torch
from diffusers.optimization import get_scheduler

from spf_lite.config import TrainConfig
from spf_lite.training.schedule import accelerator_for, learning_rates

PEAK = 0.5


def rates(**options: object) -> list[float]:
    """The learning rate of every step, and the one that would come after the last."""
    config = TrainConfig(stage1_steps=6, stage2_steps=4, learning_rate=PEAK, **options)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = learning_rates(optimizer, config)
    found = []
    for _ in range(config.steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_is_the_same_rate_in_both_stages() -> None:
    assert rates() == [PEAK] * 11


def test_warming_up_is_a_straight_line_that_ends_at_the_full_rate() -> None:
    found = rates(warmup_steps=4)
    assert found[:5] == pytest.approx([PEAK * share for share in (0.2, 0.4, 0.6, 0.8, 1.0)])
    assert found[5:] == [PEAK] * 6


def test_a_cosine_comes_down_to_zero_over_both_stages() -> None:
    found = rates(schedule="cosine")
    assert found == pytest.approx([PEAK / 2 * (1 + cos(pi * step / 10)) for step in range(11)])
    assert found[0] == PEAK and found[5] == pytest.approx(PEAK / 2) and found[10] == pytest.approx(0)
    late = rates(schedule="cosine", warmup_steps=4)
    assert late[4:] == found[4:] and all(a < b for a, b in zip(late[:4], found[:4], strict=True))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rates_are_those_of_diffusers_but_for_the_warm_up(schedule: str) -> None:
    def theirs(warmup: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
        name = schedule if schedule == "cosine" or not warmup else "constant_with_warmup"
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=10)
        found = []
        for _ in range(11):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    assert rates(schedule=schedule) == theirs(0)
    assert theirs(4)[0] == 0 < rates(schedule=schedule, warmup_steps=4)[0]


def test_the_accelerator_takes_device_and_precision(fresh_accelerate: None) -> None:
    accelerator = accelerator_for(TrainConfig(mixed_precision="bf16"), torch.device("cpu"))
    assert accelerator.device == torch.device("cpu") and accelerator.num_processes == 1
    layer, numbers = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with accelerator.autocast():
        assert layer(numbers).dtype == torch.bfloat16
    assert layer(numbers).dtype == torch.float32


def test_a_precision_that_the_device_cannot_compute_in_is_refused(fresh_accelerate: None) -> None:
    with pytest.raises(ValueError, match="float16 is a precision of GPUs"):
        accelerator_for(TrainConfig(mixed_precision="fp16"), torch.device("cpu"))
