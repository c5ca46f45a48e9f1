from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, phrase_matrix
from spf_lite.data.prompts import encode_pair
from spf_lite.method import control_map as control_map_module
from spf_lite.method.control_map import (
    ControlMap,
    averaged_maps,
    combine,
    control_map,
    min_max,
    noise_difference,
    with_averaged_maps,
)
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord
from spf_lite.models.diffusion import add_noise
from spf_lite.options import ControlMapOptions
from spf_lite.pretrain.text import build_tokenizer

from .conftest import autocast, item, train

AVERAGED = TrainConfig(batch_size=2, map_source="averaged", map_draws=3, map_timesteps=0.4)
PLAIN = ControlMapOptions(smoothing=1, rescale=False, subtraction="sum")


def half(left: float, right: float) -> torch.Tensor:
    """A 4x4 map with one value on the left and one on the right."""
    return torch.cat([torch.full((1, 1, 4, 2), float(left)), torch.full((1, 1, 4, 2), float(right))], dim=-1)


def test_min_max_stretches_each_map_and_blanks_constant_ones() -> None:
    maps = torch.stack([half(2, 6)[0], half(3, 3)[0]])
    assert torch.equal(min_max(maps)[0], half(0, 1)[0])
    assert torch.equal(min_max(maps)[1], half(0, 0)[0])


def test_noise_difference_sees_where_both_paths_disagree() -> None:
    reference = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    response = reference + half(0, 1) * torch.tensor([1.0, -1.0, 1.0, -1.0])[None, :, None, None]
    assert torch.allclose(noise_difference(response, reference, smoothing=1), half(0, 1), atol=1e-6)
    smooth = noise_difference(response, reference, smoothing=3)
    assert smooth[0, 0, 0, 0] == 0 and smooth[0, 0, 0, 3] == 1
    assert 0 < smooth[0, 0, 0, 1] < smooth[0, 0, 0, 2] < 1


def test_the_formula() -> None:
    difference, phrase = half(1.0, 0.8), half(0.5, 0.1)
    control = combine(difference, phrase, torch.tensor([[0.6]]), PLAIN)
    assert torch.allclose(control, half(0.7, 0.74))
    doubled = combine(difference, phrase, torch.tensor([[0.6]]), ControlMapOptions(2.0, 1, False, subtraction="sum"))
    assert torch.allclose(doubled, half(0.4, 0.68))
    assert combine(difference, phrase, torch.tensor([[9.0]]), PLAIN).min() == 0, "clamped"


def test_a_related_phrase_protects_less_than_an_unrelated_one() -> None:
    phrases = torch.cat([half(1, 0), half(0, 1)], dim=1)
    control = combine(half(1, 1), phrases, torch.tensor([[0.2, 0.9]]), PLAIN)
    assert control[0, 0, 0, 0] > control[0, 0, 0, 3]


def test_the_mean_does_not_grow_with_the_number_of_phrases() -> None:
    phrase = half(0.5, 0.1)
    mean = ControlMapOptions(smoothing=1, rescale=False, subtraction="mean")
    once = combine(half(1.0, 0.8), phrase, torch.tensor([[0.6]]), mean)
    four_times = combine(half(1.0, 0.8), phrase.expand(-1, 4, -1, -1), torch.full((1, 4), 0.6), mean)
    assert torch.allclose(once, half(0.5, 0.7)) and torch.allclose(four_times, once)
    assert combine(half(1.0, 0.8), phrase.expand(-1, 4, -1, -1), torch.full((1, 4), 0.6), PLAIN).min() == 0
    nothing = combine(half(1.0, 0.8), torch.zeros(1, 0, 4, 4), torch.zeros(1, 0), mean)
    assert torch.allclose(nothing, half(1.0, 0.8)), "no phrase, no subtraction, no division by zero"


def test_threshold_and_softness() -> None:
    difference, none = half(0.3, 0.9), torch.zeros(1, 0, 4, 4)
    distances = torch.zeros(1, 0)
    soft = combine(difference, none, distances, ControlMapOptions(1, 1, False, threshold=0.5))
    assert torch.allclose(soft, half(0, 0.9))
    hard = combine(difference, none, distances, ControlMapOptions(1, 1, False, threshold=0.5, softness=0.0))
    assert torch.equal(hard, half(0, 1))


def test_options_are_checked() -> None:
    for bad in ({"smoothing": 2}, {"threshold": 1.0}, {"softness": 2.0}, {"weight": -1.0}, {"subtraction": "max"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ControlMapOptions(**bad)


def test_a_batch_with_unequal_numbers_of_phrases() -> None:
    tokenizer = build_tokenizer()
    pairs = [encode_pair(tokenizer, "a person, red hair", "sunglasses"), encode_pair(tokenizer, "smiling", "a beard")]
    matrix = phrase_matrix(pairs, tokenizer.model_max_length)
    assert matrix.shape == (2, 2, 32)
    assert torch.equal(matrix.sum(dim=-1), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 16, 32, generator=generator)
    blank = torch.zeros(2, 16, 5)
    layer = LayerRecord((4, 4), blank, blank, maps, blank)
    response = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    result = control_map(response, torch.zeros(2, 4, 8, 8), {"a": layer}, matrix, torch.rand(2, 2, generator=generator))
    assert result.map.shape == (2, 1, 8, 8) and result.phrase_maps.shape == (2, 2, 8, 8)
    assert result.map.min() >= 0 and result.map.max() <= 1
    assert not result.map.requires_grad, "the control map is a target: no gradient"
    assert result.phrase_maps[1, 1].abs().max() == 0


@pytest.fixture
def tuned(toy: Backbone) -> Backbone:
    """A toy with a changed adapter: both paths differ."""
    train(toy)
    return toy


@pytest.fixture
def items(tuned: Backbone) -> list[Item]:
    return [item(tuned), item(tuned, "a person, tan skin"), item(tuned, "a person, red short hair, smiling")]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], ControlMap]]:
    """Arguments and result of every control map that is made during the test."""
    calls: list[tuple[tuple[Any, ...], ControlMap]] = []

    def spy(*arguments: Any) -> ControlMap:
        calls.append((arguments, control_map(*arguments)))
        return calls[-1][1]

    monkeypatch.setattr(control_map_module, "control_map", spy)
    return calls


def test_each_item_gets_a_map_of_its_own_that_does_not_change(tuned: Backbone, items: list[Item]) -> None:
    maps = averaged_maps(tuned, items, AVERAGED)
    assert maps.shape == (3, 1, 8, 8) and not maps.requires_grad
    assert maps.min() >= 0 and maps.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    assert torch.equal(averaged_maps(tuned, items, AVERAGED), maps)
    assert not torch.allclose(averaged_maps(tuned, items, replace(AVERAGED, seed=1)), maps, atol=1e-2)
    assert not torch.allclose(maps[0], maps[1], atol=1e-2)


def test_the_parts_are_averaged_before_the_formula(
    tuned: Backbone, items: list[Item], made: list[tuple[tuple[Any, ...], ControlMap]]
) -> None:
    (found,) = averaged_maps(tuned, items[:1], AVERAGED)
    single = [control for _, control in made]
    assert len(single) == 3
    differences = torch.stack([control.noise_difference for control in single])
    assert differences.std(dim=0).max() > 0.01, "three noises, three maps"
    phrases = torch.stack([control.phrase_maps for control in single])
    expected = combine(
        min_max(differences.mean(dim=0)), min_max(phrases.mean(dim=0)), single[0].distances, AVERAGED.control
    )
    assert torch.allclose(found, expected[0], atol=1e-6)


def test_under_autocast_the_maps_are_computed_in_float32(
    tuned: Backbone, items: list[Item], made: list[tuple[tuple[Any, ...], ControlMap]]
) -> None:
    with autocast("bf16"):
        found = averaged_maps(tuned, items, AVERAGED)
    assert found.dtype == torch.float32
    for arguments, control in made:
        expected = control_map(*arguments)  # outside autocast
        assert torch.equal(control.noise_difference, expected.noise_difference)
        assert torch.equal(control.phrase_maps, expected.phrase_maps)
        assert control.phrase_maps.dtype == torch.float32


def test_the_noises_are_spread_over_the_clean_end(
    tuned: Backbone, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Mock(wraps=add_noise)
    monkeypatch.setattr(control_map_module, "add_noise", spy)
    averaged_maps(tuned, items[:1], AVERAGED)
    timesteps = [call.args[3].tolist() for call in spy.call_args_list]
    assert timesteps == [[100], [200], [300]], "of 1000 the first 400, both ends left out"


def test_items_carry_their_maps_as_regions(tuned: Backbone, items: list[Item]) -> None:
    mapped = with_averaged_maps(tuned, items, AVERAGED)
    for before, after, found in zip(items, mapped, averaged_maps(tuned, items, AVERAGED), strict=True):
        assert after.region is not None and torch.equal(after.region, found)
        assert before.region is None and after.pair is before.pair and after.latents is before.latents
    assert with_averaged_maps(tuned, [], AVERAGED) == []
