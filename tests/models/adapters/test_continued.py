"""One adapter continued: the reference has what was learned before, and so has the export."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers

from spf_lite.models.adapters.continued import ContinuedLora
from spf_lite.models.adapters.lora_file import Factors, read_lora
from spf_lite.models.adapters.stack import merge
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError
from spf_lite.models.running.prefix_cache import shared_prefix

from ..conftest import factors_for, predict, without_grad


@pytest.fixture
def earlier(toy: Backbone, tmp_path: Path) -> dict[str, Factors]:
    """An adapter with convolutions, of rank 4 at most."""
    state = {key: 0.1 * value for key, value in factors_for(toy.pipe.unet, ("attn2.to_v", "conv1"), 1).items()}
    StableDiffusionPipeline.save_lora_weights(tmp_path / "earlier", unet_lora_layers=state)
    return read_lora(tmp_path / "earlier", toy.pipe.unet)


def continued(toy: Backbone, earlier: dict[str, Factors], rank: int = 5) -> ContinuedLora:
    before = merge(toy.pipe.unet, earlier)
    toy.trainable = ContinuedLora(toy.pipe.unet, rank, 0, "resnets", earlier, before)
    return toy.trainable


def test_both_paths_begin_with_the_earlier_attribute_and_only_one_goes_on(
    toy: Backbone, earlier: dict[str, Factors], tmp_path: Path
) -> None:
    untouched = copy.deepcopy(toy.pipe.unet)
    base = without_grad(toy)
    trained = continued(toy, earlier)
    with toy.reference():
        reference = without_grad(toy)
    assert torch.allclose(without_grad(toy), reference, atol=1e-5)
    assert not torch.allclose(reference, base, atol=1e-3)
    optimizer = torch.optim.Adam(trained.parameters, lr=0.01)
    with shared_prefix(toy.pipe.unet):
        for _ in range(4):
            with torch.no_grad(), trained.reference() as unet:
                wanted = predict(unet)
            optimizer.zero_grad()
            (predict(toy.pipe.unet) - 2 * wanted).square().mean().backward()
            optimizer.step()
    tuned = without_grad(toy)
    with toy.reference():
        assert torch.equal(without_grad(toy), reference), "the reference stays, to the last bit"
    assert torch.equal(without_grad(toy), tuned) and not torch.allclose(tuned, reference, atol=1e-3)
    # one file holds both attributes
    layers = convert_state_dict_to_diffusers(trained.lora_layers())
    StableDiffusionPipeline.save_lora_weights(tmp_path / "both", unet_lora_layers=layers)
    toy.pipe.unet, toy.trainable = untouched, None
    toy.pipe.load_lora_weights(tmp_path / "both")
    assert torch.allclose(without_grad(toy), tuned, atol=1e-5)


def test_the_gradient_is_that_of_the_adapter_on_the_base_model(toy: Backbone, earlier: dict[str, Factors]) -> None:
    """The reference pass swaps weights in and out: the backward pass must see those of the response path."""
    other = copy.deepcopy(toy.pipe.unet)
    trained = continued(toy, earlier)
    loss = predict(toy.pipe.unet).square().mean()
    with torch.no_grad(), trained.reference():
        predict(toy.pipe.unet)
    loss.backward()
    plain = ContinuedLora(
        other, 5, 0, "resnets", earlier, {name: other.get_submodule(name).weight.data for name in earlier}
    )
    predict(other).square().mean().backward()
    for here, there in zip(trained.parameters, plain.parameters, strict=True):
        assert here.grad is not None and there.grad is not None
        assert torch.equal(here.grad, there.grad)


def test_an_error_on_the_reference_path_leaves_the_response_path(toy: Backbone, earlier: dict[str, Factors]) -> None:
    trained = continued(toy, earlier)
    response = without_grad(toy)
    with pytest.raises(KeyError), trained.reference():
        raise KeyError
    assert torch.equal(without_grad(toy), response)


def test_a_larger_rank_or_other_layers_are_refused(toy: Backbone, earlier: dict[str, Factors]) -> None:
    with pytest.raises(BackboneError, match="its rank is 4, and 3 is trained: set rank=4"):
        ContinuedLora(toy.pipe.unet, 3, 0, "resnets", earlier, {})
    with pytest.raises(BackboneError, match="layers besides cross-attention"):
        ContinuedLora(toy.pipe.unet, 4, 0, "cross-attention", earlier, {})
    assert not hasattr(toy.pipe.unet, "peft_config")
