"""Three ways of training the same layers: the reference stays bit-identical, and the export is an ordinary LoRA."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers

from spf_lite.config import KINDS
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError
from spf_lite.models.trainable import AdaLora, Trainable, Weights, make_trainable

STEPS = 12


def _draw(toy: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    unet = toy.pipe.unet
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    noisy = torch.randn(2, unet.config.in_channels, size, size, generator=generator)
    hidden = torch.randn(2, 6, width, generator=generator)
    return unet(noisy, torch.tensor([10, 500]), encoder_hidden_states=hidden).sample


def _train(toy: Backbone, trained: Trainable, first: int = 0, last: int = STEPS) -> None:
    optimizer = torch.optim.Adam(trained.parameters, lr=0.01)
    for step in range(first, last):
        loss = _draw(toy).square().mean()
        penalty = trained.penalty()
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        trained.after_backward(step)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_reference_is_the_untouched_model_to_the_last_bit(toy: Backbone, kind: str) -> None:
    with torch.no_grad():
        before = _draw(toy)
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    _train(toy, trained)
    with torch.no_grad():
        tuned = _draw(toy)
        with trained.reference():
            again = _draw(toy)
        back = _draw(toy)
    assert torch.equal(again, before)
    assert torch.equal(back, tuned)
    assert not torch.allclose(tuned, before, atol=1e-5)


def test_the_change_comes_back_after_an_error(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    _train(toy, trained, last=3)
    with torch.no_grad():
        tuned = _draw(toy)
        with pytest.raises(KeyError), trained.reference():
            raise KeyError
        assert torch.equal(_draw(toy), tuned)


def test_only_cross_attention_is_trained(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    names = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    assert names and all(".attn2." in name for name in names)
    assert len(names) == len(trained.parameters)


def test_the_export_draws_the_same_in_plain_diffusers(toy: Backbone, kind: str, tmp_path: Path) -> None:
    untouched = copy.deepcopy(toy.pipe.unet.state_dict())
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    _train(toy, trained)
    with torch.no_grad():
        tuned = _draw(toy)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=convert_state_dict_to_diffusers(trained.lora_layers())
    )
    fresh = type(toy.pipe.unet).from_config(toy.pipe.unet.config)
    fresh.load_state_dict(untouched)
    toy.pipe.unet = fresh.eval()
    toy.trainable = None
    toy.pipe.load_lora_weights(tmp_path)
    with torch.no_grad():
        assert torch.allclose(_draw(toy), tuned, atol=1e-5)


def test_a_restored_run_goes_on_as_if_nothing_had_happened(toy: Backbone, kind: str) -> None:
    other = Backbone(copy.deepcopy(toy.pipe), toy.spec)
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    _train(toy, trained, last=7)
    state = {name: value.clone() for name, value in trained.state().items()}
    _train(toy, trained, first=7)
    resumed = make_trainable(kind, other.pipe.unet, rank=4, seed=1, steps=STEPS)
    resumed.restore(state)
    _train(other, resumed, first=7)
    with torch.no_grad():
        assert torch.equal(_draw(toy), _draw(other))


def test_adalora_prunes_to_its_budget(toy: Backbone) -> None:
    trained = make_trainable("adalora", toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    assert isinstance(trained, AdaLora)
    _train(toy, trained)
    entries = torch.cat([p.flatten() for name, p in toy.pipe.unet.named_parameters() if "lora_E" in name])
    layers = sum("lora_E" in name for name, _ in toy.pipe.unet.named_parameters())
    assert 0 < int((entries != 0).sum()) <= 4 * layers < len(entries)


def test_weights_keep_a_copy_of_the_trained_layers_alone(toy: Backbone) -> None:
    trained = make_trainable("weights", toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    assert isinstance(trained, Weights)
    assert sum(w.numel() for w in trained.original.values()) == sum(p.numel() for p in trained.parameters)


def test_an_unknown_kind_and_a_second_adapter_are_refused(toy: Backbone, kind: str) -> None:
    with pytest.raises(ValueError, match="expected one of lora, adalora, weights"):
        make_trainable("ia3", toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    make_trainable("lora", toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    with pytest.raises(BackboneError, match="already has an adapter"):
        make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)


def test_sixteen_bits_are_for_what_is_frozen(toy: Backbone) -> None:
    toy.pipe.unet.to(torch.bfloat16)
    with pytest.raises(BackboneError, match="learn in 32 bits, and are torch.bfloat16"):
        make_trainable("weights", toy.pipe.unet, 2, 0, 10)
    lora = make_trainable("lora", toy.pipe.unet, 2, 0, 10)
    assert {parameter.dtype for parameter in lora.parameters} == {torch.float32}
    assert {p.dtype for p in toy.pipe.unet.parameters() if not p.requires_grad} == {torch.bfloat16}
