"""Mixed precision: the reference stays the untouched model, and sums are taken in 32 bits."""

import copy

import pytest
import torch

from spf_lite.choices import KINDS
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone
from spf_lite.models.precision import forget_casts, full_precision

from .conftest import predict


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_the_reference_is_the_untouched_model_for_every_kind(toy: Backbone, kind: str) -> None:
    """Autocast keeps its 16-bit copies of trained weights: within one context, neither path may use the other's."""
    untouched = copy.deepcopy(toy.pipe.unet)
    trained = make_trainable(kind, toy.pipe.unet, rank=2, seed=0, steps=12)
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.add_(0.2)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            expected = predict(untouched)
        response = predict(toy.pipe.unet)
        with torch.no_grad(), trained.reference() as unet:
            reference = predict(unet)
        again = predict(toy.pipe.unet)
    assert torch.equal(reference, expected)
    assert not torch.equal(response, reference), "the response path is the tuned model"
    assert torch.equal(again, response), "also after the reference was asked"
    again.square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_an_earlier_state_is_used_as_it_was(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=2, seed=0, steps=12)
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.add_(0.2)
    earlier = {name: value.clone() for name, value in trained.state().items()}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = predict(toy.pipe.unet)
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.add_(0.2)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        later = predict(toy.pipe.unet)
        with trained.using(earlier):
            assert torch.equal(predict(toy.pipe.unet), expected)
        assert torch.equal(predict(toy.pipe.unet), later)
    assert not torch.equal(later, expected)


def test_a_changed_weight_is_cast_anew() -> None:
    layer, features = torch.nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(features)
        with torch.no_grad():
            layer.weight += 1
        assert torch.equal(layer(features), before), "PyTorch's copy is stale"
        forget_casts()
        assert torch.allclose(layer(features).float(), before.float() + 2, atol=0.05)


def test_sums_are_taken_in_32_bits_inside_autocast() -> None:
    layer, features = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features).dtype == torch.bfloat16
        with full_precision(torch.device("cpu")):
            assert layer(features).dtype == torch.float32
        assert layer(features).dtype == torch.bfloat16
    with full_precision(torch.device("meta")):
        assert layer(features).dtype == torch.float32
