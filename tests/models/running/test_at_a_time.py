"""Small portraits pass through a model many at a time, large ones few: wherever no batch size is given."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from spf_lite.data.encoding import custom_items, preview_features, reference_latents
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.method.paths import reference_predictions
from spf_lite.models.backbone import Backbone
from spf_lite.models.running import at_a_time as counted
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.sampling import sample
from spf_lite.pure_pairs.repaint import repaint

#: The toy model has latents of 8 x 8 places.
PLACES = 64
TEXT = "a person, smiling"


@pytest.mark.parametrize(
    ("side", "most", "count"), [(16, 32, 32), (64, 32, 4), (96, 32, 1), (128, 32, 1), (256, 32, 1), (64, 2, 2)]
)
def test_many_small_portraits_or_few_large_ones(side: int, most: int, count: int) -> None:
    assert at_a_time((side, side), most) == count


def test_a_long_portrait_counts_by_its_places() -> None:
    assert at_a_time((32, 128), 32) == at_a_time((64, 64), 32)


def sampled(toy: Backbone, count: int) -> torch.Tensor:
    return sample(toy, [TEXT] * count, seeds=range(count), steps=1, output_type="latent")


def referred(toy: Backbone, count: int) -> torch.Tensor:
    return torch.stack(reference_latents(toy, [(TEXT, None)], count, seed=0))


def repainted(toy: Backbone, count: int) -> torch.Tensor:
    latents = torch.ones(count, 4, 8, 8)
    return repaint(toy, latents, latents[:, :1], [TEXT] * count, torch.Generator().manual_seed(0))


def predicted(toy: Backbone, count: int) -> torch.Tensor:
    shape = toy.architecture.text_shape(toy.pipe)
    times = torch.full((count,), 500)
    return reference_predictions(toy, torch.ones(count, 4, 8, 8), times, torch.ones(count, *shape))


@pytest.mark.parametrize("paint", [sampled, referred, repainted, predicted])
def test_no_pass_has_more_rows_than_fit(
    paint: Callable[[Backbone, int], torch.Tensor], toy: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def look(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        rows.append(len(arguments[0] if arguments else options["sample"]))

    hook = toy.network.register_forward_pre_hook(look, with_kwargs=True)
    try:
        together = paint(toy, 5)
        alone = max(rows)
        rows.clear()
        monkeypatch.setattr(counted, "PLACES", 2 * PLACES)
        apart = paint(toy, 5)
    finally:
        hook.remove()
    assert alone in (5, 10), "all at once; twice as many rows with guidance"
    assert max(rows) == alone * 2 // 5
    assert torch.allclose(together, apart, atol=1e-4)


def test_portraits_are_encoded_and_decoded_a_few_at_a_time(
    toy: Backbone, custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(custom_set, examples=custom_set.examples[:3])
    whole = custom_items(toy, few, enhance=True)
    monkeypatch.setattr(counted, "PLACES", PLACES)
    encoded: list[int] = []
    hook = toy.pipe.vae.encoder.register_forward_pre_hook(lambda _, images: encoded.append(len(images[0])))
    try:
        apart = custom_items(toy, few, enhance=True)
    finally:
        hook.remove()
    assert encoded == [1, 1, 1]
    for one, other in zip(whole, apart, strict=True):
        assert torch.allclose(one.latents, other.latents, atol=1e-5)
        assert one.portrait_features is not None and other.portrait_features is not None
        assert torch.allclose(one.portrait_features, other.portrait_features, atol=1e-4)
    latents = torch.stack([item.latents for item in whole])
    assert preview_features(toy, latents).shape[0] == 3
