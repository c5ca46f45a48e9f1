import pytest
import torch

from spf_lite.method.purecc import Extractor
from spf_lite.models.adapters import adapters_off
from spf_lite.models.backbone import Backbone
from spf_lite.models.trainable import Lora, Trainable, make_trainable

NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 700])


def move(trained: Trainable, distance: float) -> None:
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter += distance


def test_an_untrained_state_adds_what_the_plain_model_does(toy: Backbone) -> None:
    trained = Lora(toy.pipe.unet, rank=2, seed=0)
    added = Extractor(toy, trained, {name: value.clone() for name, value in trained.state().items()}, "sunglasses")
    move(trained, 0.3)
    said, unsaid = (text.expand(2, -1, -1) for text in added.texts)
    with torch.no_grad(), adapters_off(toy.pipe.unet) as plain:
        expected = plain(NOISY, TIMESTEPS, said).sample - plain(NOISY, TIMESTEPS, unsaid).sample
    assert torch.allclose(added(NOISY, TIMESTEPS), expected, atol=1e-5)
    assert expected.abs().max() > 1e-4, "the target says something"


@pytest.mark.parametrize("kind", ["lora", "weights"])
def test_it_stays_as_it_was_and_leaves_what_is_trained_alone(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=2, seed=0, steps=10)
    move(trained, 0.2)
    state = {name: value.detach().clone() for name, value in trained.state().items()}
    added = Extractor(toy, trained, state, "sunglasses")
    before = added(NOISY, TIMESTEPS)
    move(trained, 0.2)
    now = {name: value.detach().clone() for name, value in trained.state().items()}
    after = added(NOISY, TIMESTEPS)
    assert torch.equal(before, after) and not after.requires_grad
    assert all(torch.equal(value, now[name]) for name, value in trained.state().items())
    later = Extractor(toy, trained, now, "sunglasses")(NOISY, TIMESTEPS)
    assert not torch.allclose(later, after, atol=1e-4), "a later state adds something else"
    assert all(parameter.requires_grad for parameter in trained.parameters)


def test_without_a_target_nothing_is_added(toy: Backbone) -> None:
    trained = Lora(toy.pipe.unet, rank=2, seed=0)
    assert Extractor(toy, trained, trained.state(), "")(NOISY, TIMESTEPS).abs().max() < 1e-6
