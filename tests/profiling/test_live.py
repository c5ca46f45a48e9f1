from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from spf_lite.models.backbone import Backbone
from spf_lite.profiling.live import LivePeak
from spf_lite.profiling.moments import decoding_bytes, painting_bytes
from spf_lite.profiling.saved import storage_key


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_peak_is_what_was_alive_at_once(device: str) -> None:
    given = torch.zeros(1000, device=device)
    with torch.no_grad(), LivePeak() as live:
        one = given + 1
        two = one * 2
        assert (live.now, live.peak) == (8000, 8000)
        del one
        view = two.view(10, 100)[0]
        view.mul_(3)
        given.reshape(10, 100).t()
        assert live.now == 4000, "views and changes in place are no new memory"
        three = (two + 1) + 1
        assert (live.now, live.peak) == (8000, 12_000), "the sum in between was there for a moment"
        del two, view
        assert live.now == 4000
    del three
    assert (live.now, live.peak) == (0, 12_000)


def test_known_storages_are_not_counted() -> None:
    weight = torch.ones(3, 3, device="meta")
    with LivePeak({storage_key(weight)}) as live:
        weight.add_(1)
        half = weight.half()
        F.linear(half, half)
    assert live.peak == 2 * 9 * 2


@pytest.mark.parametrize("count", [painting_bytes, decoding_bytes])
def test_the_meta_device_has_the_peak_of_real_tensors(
    count: Callable[[Backbone, int, int], int], shapes: Backbone, toy: Backbone
) -> None:
    real, counted = count(toy, 2, 8), count(shapes, 2, 8)
    assert real > 50_000
    assert counted == pytest.approx(real, rel=0.02)
