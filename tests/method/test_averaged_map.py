from dataclasses import replace

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.method import control_map as averaged_map
from spf_lite.method.control_map import ControlMap, averaged_maps, combine, min_max, with_averaged_maps
from spf_lite.models.adapters import add_lora
from spf_lite.models.backbone import Backbone

from .test_dual_path import item

CONFIG = TrainConfig(batch_size=2, map_source="averaged", map_draws=3, map_timesteps=0.4)


@pytest.fixture
def tuned(toy: Backbone) -> Backbone:
    """A toy whose adapter says something."""
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter += 0.2
    return toy


@pytest.fixture
def items(tuned: Backbone) -> list[Item]:
    return [item(tuned), item(tuned, "a person, tan skin"), item(tuned, "a person, red short hair, smiling")]


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[object, ...], ControlMap]]:
    """Every control map that is made from now on, and what it is made of."""
    seen: list[tuple[tuple[object, ...], ControlMap]] = []
    make = averaged_map.control_map

    def listen(*arguments: object) -> ControlMap:
        seen.append((arguments, make(*arguments)))  # type: ignore[arg-type]
        return seen[-1][1]

    monkeypatch.setattr(averaged_map, "control_map", listen)
    return seen


def test_each_item_gets_a_map_of_its_own_that_does_not_change(tuned: Backbone, items: list[Item]) -> None:
    maps = averaged_maps(tuned, items, CONFIG)
    assert maps.shape == (3, 1, 8, 8) and not maps.requires_grad
    assert maps.min() >= 0 and maps.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    assert torch.equal(averaged_maps(tuned, items, CONFIG), maps)
    assert not torch.allclose(averaged_maps(tuned, items, replace(CONFIG, seed=1)), maps, atol=1e-2)
    assert not torch.allclose(maps[0], maps[1], atol=1e-2)


def test_the_parts_are_averaged_before_the_formula(
    tuned: Backbone, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch)
    (found,) = averaged_maps(tuned, items[:1], CONFIG)
    single = [control for _, control in seen]
    assert len(single) == 3
    differences = torch.stack([control.noise_difference for control in single])
    assert differences.std(dim=0).max() > 0.01, "three noises, three maps"
    phrases = torch.stack([control.phrase_maps for control in single])
    expected = combine(
        min_max(differences.mean(dim=0)), min_max(phrases.mean(dim=0)), single[0].distances, CONFIG.control
    )
    assert torch.allclose(found, expected[0], atol=1e-6)


def test_the_noises_are_spread_over_the_clean_end(
    tuned: Backbone, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[list[int]] = []
    forward = averaged_map.add_noise

    def listen(scheduler: object, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        times.append(timesteps.tolist())
        return forward(scheduler, latents, noise, timesteps)  # type: ignore[arg-type]

    monkeypatch.setattr(averaged_map, "add_noise", listen)
    averaged_maps(tuned, items[:1], CONFIG)
    assert times == [[100], [200], [300]], "of 1000 the first 400, both ends left out"


def test_items_carry_their_maps_as_regions(tuned: Backbone, items: list[Item]) -> None:
    regions = with_averaged_maps(tuned, items, CONFIG)
    for before, after, found in zip(items, regions, averaged_maps(tuned, items, CONFIG), strict=True):
        assert after.region is not None and torch.equal(after.region, found)
        assert replace(after, region=None) is not before and after.pair is before.pair and before.region is None
    assert with_averaged_maps(tuned, [], CONFIG) == []
