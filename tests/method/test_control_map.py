import pytest
import torch

from spf_lite.config import ControlMapOptions
from spf_lite.data.batch import phrase_matrix
from spf_lite.data.prompts import encode_pair
from spf_lite.method.attention import LayerRecord
from spf_lite.method.control_map import combine, control_map, min_max, noise_difference
from spf_lite.pretrain.text import build_tokenizer

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
            ControlMapOptions(**bad)  # type: ignore[arg-type]


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
