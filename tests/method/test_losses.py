import pytest
import torch
import torch.nn.functional as F

from spf_lite.method import losses


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_denoising_is_one_number_per_portrait() -> None:
    prediction = rand(3, 4, 8, 8)
    assert torch.allclose(losses.denoising(prediction, prediction + 2), torch.full((3,), 4.0))


def test_nothing_is_asked_inside_the_control_map() -> None:
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


def test_the_map_is_shrunk_to_the_layer_by_averaging() -> None:
    control = torch.zeros(1, 1, 8, 8)
    control[..., ::2] = 1
    assert torch.allclose(losses.outside(control, (4, 4)), torch.full((1, 16), 0.5), atol=0.2)


def test_filled_up_tokens_do_not_count() -> None:
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


def test_purecc_forgives_what_the_target_adds_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    base, concept, other = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    # Whatever lies along the concept is free, however much of it there is.
    assert torch.allclose(losses.purecc(base + 2.5 * concept, base, concept), torch.zeros(2), atol=1e-6)
    # The rest costs its mean square.
    along = (other * concept).sum(dim=(1, 2, 3), keepdim=True) / concept.square().sum(dim=(1, 2, 3), keepdim=True)
    rest = other - along * concept
    found = losses.purecc(base + 0.7 * concept + rest, base, concept)
    assert torch.allclose(found, rest.square().flatten(1).mean(dim=1), rtol=1e-4)


def test_purecc_has_no_gradient_to_its_goal() -> None:
    generator = torch.Generator().manual_seed(0)
    response, base, concept = (torch.randn(2, 4, 3, 3, generator=generator).requires_grad_() for _ in range(3))
    losses.purecc(response, base, concept).sum().backward()
    assert base.grad is None and concept.grad is None
    assert response.grad is not None and response.grad.abs().sum() > 0
