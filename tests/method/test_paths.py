import copy
from contextlib import nullcontext

import pytest
import torch

from spf_lite.method.paths import both_paths, reference_path, response_path
from spf_lite.models.adapters.lora_file import Factors
from spf_lite.models.adapters.original import OriginalWeights
from spf_lite.models.adapters.stack import merge
from spf_lite.models.backbone import Backbone

from ..models.conftest import factors_for
from .conftest import autocast, gradients, train

GENERATOR = torch.Generator().manual_seed(0)
NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=GENERATOR), torch.tensor([100, 700])
BASE, COMPLETE = torch.randn(2, 2, 7, 32, generator=GENERATOR)


def predict(backbone: Backbone, text: torch.Tensor) -> torch.Tensor:
    """A plain pass of the UNet as it stands."""
    with torch.no_grad():
        prediction: torch.Tensor = backbone.pipe.unet(NOISY, TIMESTEPS, encoder_hidden_states=text).sample
    return prediction


def test_the_reference_path_is_the_original_unet_on_the_base_text(toy: Backbone, kind: str) -> None:
    original = predict(toy, BASE)
    train(toy, kind)
    with both_paths(toy, NOISY, TIMESTEPS, BASE, COMPLETE) as (reference, _):
        assert torch.equal(reference.prediction, original)
    assert torch.equal(reference_path(toy, NOISY, TIMESTEPS, BASE).prediction, original)
    assert not torch.allclose(predict(toy, BASE), original, atol=1e-3), "training changed the UNet"


def test_the_response_path_is_the_unet_in_training_on_the_complete_text(toy: Backbone, kind: str) -> None:
    train(toy, kind)
    tuned = predict(toy, COMPLETE)
    with both_paths(toy, NOISY, TIMESTEPS, BASE, COMPLETE) as (_, response):
        assert torch.equal(response.prediction, tuned)
    with response_path(toy, NOISY, TIMESTEPS, COMPLETE) as alone:
        assert torch.equal(alone.prediction, tuned)


def test_plain_texts_have_the_model_without_earlier_adapters_as_reference(toy: Backbone, kind: str) -> None:
    network, factors = toy.network, factors_for(toy.network, ("attn2.to_v", "conv1"), 2, 0)
    original = predict(toy, BASE)
    layers = [name.removesuffix(".lora_A.weight") for name in factors if "lora_A" in name]
    before = merge(
        network, {one: Factors(factors[f"{one}.lora_A.weight"], factors[f"{one}.lora_B.weight"]) for one in layers}
    )
    merged = predict(toy, BASE)
    assert not torch.allclose(merged, original, atol=1e-3)
    train(toy, kind)
    toy.original = OriginalWeights(network, before)
    for plain in ([True, False], [False, True], [True, True], [False, False]):
        expected = torch.stack([(original if one else merged)[row] for row, one in enumerate(plain)])
        paths = both_paths(
            toy, NOISY, TIMESTEPS, BASE, COMPLETE, torch.tensor(plain), record_reference=True, record_response=True
        )
        with paths as (reference, response):
            assert torch.allclose(reference.prediction, expected, atol=1e-5)
            assert torch.equal(response.prediction, predict(toy, COMPLETE))
        rows = zip(NOISY.split(1), TIMESTEPS.split(1), BASE.split(1), torch.tensor(plain).split(1), strict=True)
        alone = [reference_path(toy, *row, record_layers=True) for row in rows]
        for name, layer in reference.layers.items():
            for part in ("inputs", "queries", "maps", "outputs"):
                whole = torch.cat([getattr(one.layers[name], part) for one in alone])
                assert torch.allclose(getattr(layer, part), whole, atol=1e-5), (plain, name, part)
    assert torch.equal(reference_path(toy, NOISY, TIMESTEPS, BASE).prediction, merged), "nobody says what is plain"


def test_the_paths_differ_and_the_response_learns_within_one_autocast_context(
    toy: Backbone, kind: str, precision: str
) -> None:
    """Autocast keeps 16-bit copies of trained weights: the reference path must not leave its own to the response."""
    with autocast(precision):
        original = predict(toy, BASE).float()
    trained = train(toy, kind)
    with autocast(precision), response_path(toy, NOISY, TIMESTEPS, BASE) as alone:
        expected = gradients(alone.prediction.square().sum(), trained)
    with autocast(precision):
        for _ in range(2):  # the second time, copies of both may be there
            with both_paths(toy, NOISY, TIMESTEPS, BASE, BASE) as (reference, response):
                found = gradients(response.prediction.square().sum(), trained)
            assert torch.equal(reference.prediction, original)
            assert torch.equal(response.prediction, alone.prediction)
            assert not torch.allclose(response.prediction, reference.prediction, atol=1e-3)
            assert all(gradient.abs().sum() > 0 for gradient in found)
            assert all(map(torch.equal, found, expected))


def test_no_gradient_enters_the_reference_path(toy: Backbone) -> None:
    train(toy)
    with both_paths(toy, NOISY, TIMESTEPS, BASE, COMPLETE, record_reference=True, record_response=True) as (
        reference,
        response,
    ):
        assert not reference.prediction.requires_grad and response.prediction.requires_grad
        assert not any(layer.maps.requires_grad for layer in reference.layers.values())
        assert all(layer.maps.requires_grad for layer in response.layers.values())


@pytest.mark.parametrize("record_reference", [False, True])
@pytest.mark.parametrize("record_response", [False, True])
def test_each_path_is_recorded_only_if_asked_for(toy: Backbone, record_reference: bool, record_response: bool) -> None:
    train(toy)
    processors = dict(toy.pipe.unet.attn_processors)
    with both_paths(
        toy, NOISY, TIMESTEPS, BASE, COMPLETE, record_reference=record_reference, record_response=record_response
    ) as (reference, response):
        counts = len(reference.layers), len(response.layers)
        assert counts == (3 * record_reference, 3 * record_response)
    assert toy.pipe.unet.attn_processors == processors


def test_checkpointing_in_the_backward_pass_gives_the_same_gradient(toy: Backbone) -> None:
    trained = train(toy)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            toy.pipe.unet.enable_gradient_checkpointing()
            toy.pipe.unet.train()
        with both_paths(toy, NOISY, TIMESTEPS, BASE, COMPLETE, record_response=True) as (_, response):
            maps = torch.stack([layer.maps.square().mean() for layer in response.layers.values()]).sum()
            found.append(gradients(response.prediction.square().mean() + maps, trained))
    assert all(torch.allclose(plain, again, atol=1e-7) for plain, again in zip(*found, strict=True))


def test_the_reference_path_runs_the_unet_that_the_trainable_names(
    toy: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two models in memory that is another UNet than the one in training."""
    trained = train(toy)
    other = copy.deepcopy(toy.pipe.unet)
    with torch.no_grad():
        other.conv_out.bias.add_(5)
    monkeypatch.setattr(trained, "reference", lambda: nullcontext(other))
    reference = reference_path(toy, NOISY, TIMESTEPS, BASE).prediction
    assert torch.allclose(reference, predict(toy, BASE) + 5, atol=1e-5)
