import pytest
import torch
import torch.nn.functional as F

from spf_lite.method import losses
from spf_lite.method.losses import Term


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_denoising_is_one_number_per_portrait() -> None:
    prediction = rand(3, 4, 8, 8)
    assert torch.allclose(losses.denoising(prediction, prediction + 2), torch.full((3,), 4.0))


def test_a_masked_denoising_loss_is_a_weighted_mean() -> None:
    allowed = torch.zeros(1, 1, 4, 4)
    allowed[..., 0] = 1
    error = torch.where(allowed > 0, 3.0, 1.0).expand(1, 2, 4, 4)
    zero = torch.zeros_like(error)
    assert losses.denoising(error, zero, allowed, 0.0).item() == pytest.approx(9)
    assert losses.denoising(error, zero, allowed, 0.5).item() == pytest.approx((9 * 1 + 1 * 0.5 * 3) / (1 + 0.5 * 3))
    assert losses.denoising(error, zero, allowed, 1.0).item() == pytest.approx((9 + 3) / 4)
    assert losses.denoising(error, zero, torch.zeros_like(allowed), 0.0).item() == 0, "nothing is learned, no nan"


def test_the_objective_weights_and_scales_means_over_the_items_of_each_term() -> None:
    terms = {
        "denoise": Term(torch.tensor([1.0, 2.0, 60.0]), torch.tensor([True, True, False])),
        "output": Term(torch.tensor([4.0, 5.0, 6.0]), torch.tensor([False, False, True])),
    }
    factors, counts = {"denoise": 2.0, "output": 0.5}, {"denoise": 2, "output": 1}
    assert losses.objective(terms, factors, counts).item() == pytest.approx(2 * 1.5 + 0.5 * 6)
    parts = [
        {name: Term(term.values[part], term.applies[part]) for name, term in terms.items()}
        for part in (slice(0, 1), slice(1, 3))
    ]
    total = sum(losses.objective(part, factors, counts).item() for part in parts)
    assert total == pytest.approx(2 * 1.5 + 0.5 * 6), "the objectives of the parts of a batch add up"


def test_the_mean_of_a_term_is_over_the_items_that_it_applies_to() -> None:
    term = Term(torch.tensor([1.0, 2.0, 60.0]), torch.tensor([True, True, False]))
    assert term.mean().item() == 1.5
    assert Term(torch.ones(2), torch.zeros(2, dtype=torch.bool)).mean().item() == 0


def test_differences_inside_the_control_map_cost_nothing() -> None:
    control = torch.zeros(1, 1, 4, 4)
    control[..., :2] = 1
    keep = losses.outside(control, (4, 4))
    reference = rand(1, 16, 5, seed=1)
    inside = reference + (1 - keep)[:, :, None] * 7
    assert losses.fine_grained(inside, reference, keep).item() == 0
    assert losses.fine_grained(reference + 1, reference, keep).item() == pytest.approx(0.5)
    assert losses.output_alignment(control * 9, torch.zeros(1, 4, 4, 4), control).item() == 0
    maps = torch.rand(1, 2, 16, 3)
    changed = maps + (1 - keep)[:, None, :, None]
    assert losses.text_consistent(changed, maps, keep, torch.ones(1, 3)).item() == 0


def test_a_map_encloses_its_holes_and_not_its_surroundings() -> None:
    rows = (
        "11100001",
        "01111100",
        "01111100",
        "011oo100",
        "011oo100",
        "01111100",
        "00000000",
        "00000010",
    )
    control = torch.tensor([[float(mark == "1") for mark in row] for row in rows])[None, None]
    wanted = torch.tensor([[float(mark == "o") for mark in row] for row in rows])
    assert torch.equal(losses.enclosed_places(control)[0, 0], wanted)
    assert (
        losses.enclosed_places(torch.ones(2, 1, 4, 5)).sum()
        == losses.enclosed_places(torch.zeros(2, 1, 4, 5)).sum()
        == 0
    )
    soft = losses.enclosed_places(0.5 * control)
    assert torch.equal(soft[0, 0], 0.5 * wanted), "half a map encloses by half"


def test_places_that_the_map_encloses_can_weigh_more() -> None:
    control = torch.zeros(1, 1, 5, 6)
    control[..., 1:4, 1:4] = 1
    control[..., 2, 2] = 0  # a hole
    apart = torch.zeros(1, 2, 5, 6)
    whole = apart.numel()
    for place, weight in (((2, 2), 9.0), ((0, 0), 1.0), ((4, 4), 1.0), ((2, 5), 1.0), ((1, 1), 0.0)):
        response = apart.clone()
        response[0, 1][place] = 3.0
        value = losses.output_alignment(response, apart, control, enclosed=9.0).item()
        assert value == pytest.approx(weight * 9 / whole), place
        plain = losses.output_alignment(response, apart, control).item()
        assert plain == pytest.approx(min(weight, 1) * 9 / whole)


def test_places_where_earlier_targets_act_can_weigh_more() -> None:
    control, acting = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    control[..., 0] = 1
    acting[0, :, :2] = 1
    response, reference = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    plain = losses.output_alignment(response, reference, control, acting=acting)
    assert plain.tolist() == [0.75, 0.75]
    weighed = losses.output_alignment(response, reference, control, acting=acting, earlier=5.0)
    assert weighed.tolist() == [0.75 + 4 * 6 / 16, 0.75], "inside the map nothing counts"


def test_the_map_is_resized_to_the_layer_by_averaging() -> None:
    control = torch.zeros(1, 1, 8, 8)
    control[..., ::2] = 1
    assert torch.allclose(losses.outside(control, (4, 4)), torch.full((1, 16), 0.5), atol=0.2)


def test_padding_tokens_of_the_batch_do_not_count() -> None:
    response, reference = torch.ones(1, 2, 4, 3), torch.zeros(1, 2, 4, 3)
    keep = torch.ones(1, 4)
    full = losses.text_consistent(response, reference, keep, torch.ones(1, 3))
    partly = losses.text_consistent(response, reference, keep, torch.tensor([[1.0, 0.0, 0.0]]))
    assert full.item() == partly.item() == 1.0


def test_enhancement_compares_difference_vectors() -> None:
    target, portrait = F.normalize(rand(1, 8, seed=3), dim=-1), F.normalize(rand(1, 8, seed=4), dim=-1)
    assert losses.enhancement(portrait, portrait, target).item() == pytest.approx(0, abs=1e-6)
    opposite = target - (portrait - target)
    assert losses.enhancement(opposite, portrait, target).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("name", ["text", "fine", "output", "enhancement"])
def test_no_gradient_reaches_a_target(name: str) -> None:
    keep, control = torch.ones(1, 16), torch.zeros(1, 1, 4, 4)
    if name == "text":
        response, reference = rand(1, 2, 16, 3), rand(1, 2, 16, 3, seed=1)
        value = losses.text_consistent(response, reference, keep, torch.ones(1, 3))
    elif name == "fine":
        response, reference = rand(1, 16, 3), rand(1, 16, 3, seed=1)
        value = losses.fine_grained(response, reference, keep)
    elif name == "output":
        response, reference = rand(1, 4, 4, 4), rand(1, 4, 4, 4, seed=1)
        value = losses.output_alignment(response, reference, control)
    else:
        response, reference = rand(1, 8), rand(1, 8, seed=1)
        text = rand(1, 8, seed=2)
        value = losses.enhancement(response, reference, text)
        assert torch.autograd.grad(value.sum(), [text], retain_graph=True, allow_unused=True)[0] is None
    to_response, to_reference = torch.autograd.grad(value.sum(), [response, reference], allow_unused=True)
    assert to_response is not None and to_response.abs().sum() > 0
    assert to_reference is None
