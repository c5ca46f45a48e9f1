"""Three ways of training the same layers: the reference stays bit-identical, and the export is an ordinary LoRA."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file

from spf_lite.choices import KINDS
from spf_lite.models.adapters.adalora import AdaLora
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.adapters.trainable import Weights, make_trainable
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError
from spf_lite.models.running.prefix_cache import shared_prefix

from ..conftest import factors_for, predict, without_grad

STEPS = 12


def train(toy: Backbone, trained: Trainable, first: int = 0, stop: int = STEPS) -> None:
    optimizer = torch.optim.Adam(trained.parameters, lr=0.01)
    for step in range(first, stop):
        loss = predict(toy.pipe.unet).square().mean()
        penalty = trained.penalty()
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        trained.after_backward(step)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_reference_is_the_untouched_model_to_the_last_bit(toy: Backbone, kind: str) -> None:
    before = without_grad(toy)
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    train(toy, trained)
    tuned = without_grad(toy)
    with trained.reference():
        again = without_grad(toy)
    assert torch.equal(again, before)
    assert torch.equal(without_grad(toy), tuned)
    assert not torch.allclose(tuned, before, atol=1e-5)


def test_the_change_comes_back_after_an_error(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    train(toy, trained, stop=3)
    tuned = without_grad(toy)
    with pytest.raises(KeyError), trained.reference():
        raise KeyError
    assert torch.equal(without_grad(toy), tuned)


def test_convolutions_of_resnets_are_trained_when_asked_for(toy: Backbone, tmp_path: Path) -> None:
    """Shared layers of both paths, export, a plain pipeline and a new start from it: with convolutions as without."""
    base, untouched = without_grad(toy), copy.deepcopy(toy.pipe.unet)
    trained = make_trainable("lora", toy.pipe.unet, 2, 0, STEPS, layers="resnets")
    names = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    kinds = {"attn2" if ".attn2." in name else name.split(".lora")[0].rsplit(".", 1)[1] for name in names}
    assert kinds == {"attn2", "conv1", "conv2"} and len(names) == len(trained.parameters)
    train(toy, trained)
    tuned = without_grad(toy)
    with shared_prefix(toy.pipe.unet):
        with trained.reference():
            assert torch.equal(without_grad(toy), base)
        assert torch.equal(without_grad(toy), tuned)
    layers = convert_state_dict_to_diffusers(trained.lora_layers())
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    toy.pipe.unet, toy.trainable = copy.deepcopy(untouched), None
    again = make_trainable("lora", toy.pipe.unet, 3, 1, STEPS, tmp_path, "resnets")
    assert torch.allclose(without_grad(toy), tuned, atol=1e-5)
    with again.reference():
        assert torch.equal(without_grad(toy), base)
    toy.pipe.unet = untouched
    with pytest.raises(BackboneError, match=r"it changes \d+ layers besides cross-attention"):
        make_trainable("lora", toy.pipe.unet, 3, 1, STEPS, tmp_path)
    toy.pipe.load_lora_weights(tmp_path)
    assert torch.allclose(without_grad(toy), tuned, atol=1e-5)


@pytest.mark.parametrize(("kind", "layers"), [("weights", "resnets"), ("adalora", "resnets"), ("lora", "all")])
def test_layers_that_a_kind_is_not_for_are_refused(toy: Backbone, kind: str, layers: str) -> None:
    with pytest.raises(ValueError, match=f"layers='{layers}' with trainable={kind}"):
        make_trainable(kind, toy.pipe.unet, 2, 0, STEPS, layers=layers)
    assert not hasattr(toy.pipe.unet, "peft_config")


def test_only_cross_attention_is_trained(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    names = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    assert names and all(".attn2." in name for name in names)
    assert len(names) == len(trained.parameters)


def test_the_export_predicts_the_same_in_plain_diffusers(toy: Backbone, kind: str, tmp_path: Path) -> None:
    untouched = copy.deepcopy(toy.pipe.unet)
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    train(toy, trained)
    tuned = without_grad(toy)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=convert_state_dict_to_diffusers(trained.lora_layers())
    )
    toy.pipe.unet, toy.trainable = untouched, None
    toy.pipe.load_lora_weights(tmp_path)
    assert torch.allclose(without_grad(toy), tuned, atol=1e-5)
    load_adapter(toy, tmp_path)
    assert torch.allclose(without_grad(toy), tuned, atol=1e-5)


def test_a_restored_run_goes_on_as_if_nothing_had_happened(toy: Backbone, kind: str) -> None:
    other = Backbone(copy.deepcopy(toy.pipe), toy.spec)
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    train(toy, trained, stop=7)
    state = {name: value.clone() for name, value in trained.state().items()}
    train(toy, trained, first=7)
    resumed = make_trainable(kind, other.pipe.unet, rank=4, seed=1, steps=STEPS)
    resumed.restore(state)
    train(other, resumed, first=7)
    assert torch.equal(without_grad(toy), without_grad(other))


def test_an_earlier_state_is_used_for_a_while(toy: Backbone, kind: str) -> None:
    trained = make_trainable(kind, toy.pipe.unet, rank=4, seed=0, steps=STEPS)
    train(toy, trained, stop=3)
    early = without_grad(toy)
    state = {name: value.clone() for name, value in trained.state().items()}
    train(toy, trained, first=3, stop=6)
    late = without_grad(toy)
    with trained.using(state):
        assert torch.equal(without_grad(toy), early)
    with pytest.raises(KeyError), trained.using(state):
        raise KeyError
    assert torch.equal(without_grad(toy), late) and not torch.equal(late, early)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_adalora_prunes_to_its_budget(toy: Backbone, rank: int) -> None:
    trained = make_trainable("adalora", toy.pipe.unet, rank=rank, seed=0, steps=STEPS)
    assert isinstance(trained, AdaLora)
    before = without_grad(toy)
    train(toy, trained)
    entries = torch.cat([p.flatten() for name, p in toy.pipe.unet.named_parameters() if "lora_E" in name])
    layers = sum("lora_E" in name for name, _ in toy.pipe.unet.named_parameters())
    assert 0 < int((entries != 0).sum()) <= rank * layers < len(entries)
    assert not torch.allclose(without_grad(toy), before, atol=1e-6)


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


@pytest.mark.parametrize("kind, rank", [("lora", 5), ("lora", 8), ("weights", 1)])
def test_a_run_starts_from_an_existing_lora(
    kind: str, rank: int, toy: Backbone, toy_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Loaded it changes the model as much; the reference is the model without it; and all of it is trained."""
    state = {name: 0.3 * value for name, value in factors_for(toy.pipe.unet, ("attn2.to_q", "attn2.to_v")).items()}
    save_file(state, tmp_path / "earlier.safetensors")
    base = without_grad(toy)
    loaded = load(str(toy_folders["v_prediction"]))
    load_adapter(loaded, tmp_path / "earlier.safetensors")
    trained = make_trainable(kind, toy.pipe.unet, rank, 0, STEPS, start_from=tmp_path / "earlier.safetensors")
    assert torch.allclose(without_grad(toy), without_grad(loaded), atol=1e-5)
    assert not torch.allclose(without_grad(toy), base, atol=1e-2)
    with trained.reference():
        assert torch.equal(without_grad(toy), base)
    started = without_grad(toy)
    before = {name: value.clone() for name, value in trained.state().items()}
    train(toy, trained, stop=2)
    assert not torch.allclose(without_grad(toy), started, atol=1e-5)
    assert not any(torch.equal(value, before[name]) for name, value in trained.state().items()), "all of it is trained"


def test_a_start_without_an_adapter_is_what_it_was(toy: Backbone, toy_folders: dict[str, Path], kind: str) -> None:
    other = load(str(toy_folders["v_prediction"]))
    one = make_trainable(kind, toy.pipe.unet, 4, 0, STEPS)
    two = make_trainable(kind, other.pipe.unet, 4, 0, STEPS, start_from=None)
    for p, q in zip(one.parameters, two.parameters, strict=True):
        assert torch.equal(p, q)


def test_a_start_that_cannot_be_held_is_refused_before_anything_is_changed(toy: Backbone, tmp_path: Path) -> None:
    unet = toy.pipe.unet
    save_file(factors_for(unet, ("attn2.to_q",), rank=4), tmp_path / "cross.safetensors")
    save_file(factors_for(unet, ("attn1.to_q", "attn2.to_q")), tmp_path / "all.safetensors")
    for kind, rank, name, message in (
        ("lora", 8, "all.safetensors", "it changes 4 layers besides cross-attention"),
        ("weights", 8, "all.safetensors", "it changes 4 layers besides cross-attention"),
        ("lora", 8, "nowhere", "no adapter in .*nowhere"),
        ("adalora", 8, "cross.safetensors", "adalora cannot start from .*: train a lora, or the weights"),
        ("lora", 4, "cross.safetensors", "its rank is 7, and 4 is trained: set rank=7"),
    ):
        with pytest.raises(BackboneError, match=message):
            make_trainable(kind, unet, rank, 0, STEPS, start_from=tmp_path / name)
        assert not hasattr(unet, "peft_config")
    trained = make_trainable("adalora", unet, 4, 0, STEPS)
    with pytest.raises(BackboneError, match="AdaLora cannot start from an existing LoRA"):
        trained.start_from({})
