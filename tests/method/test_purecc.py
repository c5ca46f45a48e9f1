import torch

from spf_lite.method.paths import response_path
from spf_lite.method.purecc import Extractor, purecc_loss
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.lora import adapters_off
from spf_lite.models.adapters.trainable import Lora, make_trainable
from spf_lite.models.backbone import Backbone

from .conftest import autocast, gradients, move

GENERATOR = torch.Generator().manual_seed(0)
NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=GENERATOR), torch.tensor([100, 700])
TEXT = torch.randn(2, 7, 32, generator=GENERATOR)


def test_what_lies_along_the_concept_is_free_and_the_rest_costs_its_mean_square() -> None:
    generator = torch.Generator().manual_seed(0)
    base, concept, other = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    assert torch.allclose(purecc_loss(base + 2.5 * concept, base, concept), torch.zeros(2), atol=1e-6)
    along = (other * concept).sum(dim=(1, 2, 3), keepdim=True) / concept.square().sum(dim=(1, 2, 3), keepdim=True)
    rest = other - along * concept
    found = purecc_loss(base + 0.7 * concept + rest, base, concept)
    assert torch.allclose(found, rest.square().flatten(1).mean(dim=1), rtol=1e-4)


def test_no_gradient_reaches_the_goal() -> None:
    generator = torch.Generator().manual_seed(0)
    response, base, concept = (torch.randn(2, 4, 3, 3, generator=generator).requires_grad_() for _ in range(3))
    purecc_loss(response, base, concept).sum().backward()
    assert base.grad is None and concept.grad is None
    assert response.grad is not None and response.grad.abs().sum() > 0


def copied(trained: Trainable) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained.state().items()}


def test_an_untrained_state_adds_what_the_original_model_does(toy: Backbone) -> None:
    trained = Lora(toy.pipe.unet, rank=2, seed=0)
    extractor = Extractor(toy, trained, copied(trained), "sunglasses")
    move(trained, 0.3)
    target, empty = (text.expand(2, -1, -1) for text in extractor.texts)
    with torch.no_grad(), adapters_off(toy.pipe.unet) as original:
        expected = original(NOISY, TIMESTEPS, target).sample - original(NOISY, TIMESTEPS, empty).sample
    assert torch.allclose(extractor(NOISY, TIMESTEPS), expected, atol=1e-5)
    assert expected.abs().max() > 1e-4, "the target changes the prediction"


def test_the_extractor_is_frozen_and_leaves_what_is_trained_alone(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=2, seed=0, steps=10)
    move(trained)
    extractor = Extractor(toy, trained, copied(trained), "sunglasses")
    before = extractor(NOISY, TIMESTEPS)
    move(trained)
    now = copied(trained)
    after = extractor(NOISY, TIMESTEPS)
    assert torch.equal(before, after) and not after.requires_grad
    assert all(torch.equal(value, now[name]) for name, value in trained.state().items())
    later = Extractor(toy, trained, now, "sunglasses")(NOISY, TIMESTEPS)
    assert not torch.allclose(later, after, atol=1e-4), "a later state adds something else"
    assert all(parameter.requires_grad for parameter in trained.parameters)


def test_extractor_and_response_do_not_mix_within_one_autocast_context(
    toy: Backbone, kind: str, precision: str
) -> None:
    """Autocast keeps 16-bit copies of trained weights: stage 1's must not serve the response, nor the other way."""
    trained = make_trainable(kind, toy.pipe.unet, rank=2, seed=0, steps=10)
    move(trained)
    extractor = Extractor(toy, trained, copied(trained), "sunglasses")
    with autocast(precision):
        concept = extractor(NOISY, TIMESTEPS)
    move(trained)
    with autocast(precision), response_path(toy, NOISY, TIMESTEPS, TEXT) as response:
        expected = response.prediction.detach()
    with autocast(precision):
        for _ in range(2):
            assert torch.equal(extractor(NOISY, TIMESTEPS), concept)
            with response_path(toy, NOISY, TIMESTEPS, TEXT) as response:
                assert torch.equal(response.prediction, expected)
                found = gradients(response.prediction.square().sum(), trained)
            assert all(gradient.abs().sum() > 0 for gradient in found)


def test_an_empty_target_adds_nothing(toy: Backbone) -> None:
    trained = Lora(toy.pipe.unet, rank=2, seed=0)
    move(trained)
    assert Extractor(toy, trained, copied(trained), "")(NOISY, TIMESTEPS).abs().max() < 1e-6
