import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spf_lite.models.adapters.lora import LOADED, adapters_off, add_lora, load_adapter
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError

from ..conftest import factors_for, kohya, without_grad


def test_the_reference_is_the_untouched_model_to_the_bit(toy: Backbone) -> None:
    untouched = without_grad(toy)
    parameters = add_lora(toy.pipe.unet, rank=4)
    assert all(parameter.requires_grad for parameter in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3)
    tuned = without_grad(toy)
    assert not torch.equal(tuned, untouched)
    with adapters_off(toy.pipe.unet):
        assert torch.equal(without_grad(toy), untouched)
    assert torch.equal(without_grad(toy), tuned), "the adapter is back"
    with pytest.raises(KeyError), adapters_off(toy.pipe.unet):
        raise KeyError
    assert torch.equal(without_grad(toy), tuned), "also after an exception"


def test_a_new_adapter_changes_nothing_and_sits_on_cross_attention_only(toy: Backbone) -> None:
    untouched = without_grad(toy)
    state = torch.get_rng_state()
    add_lora(toy.pipe.unet, rank=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    assert torch.allclose(without_grad(toy), untouched, atol=1e-6)
    trainable = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    assert trainable and all(".attn2." in name for name in trainable)
    with pytest.raises(BackboneError, match="already has an adapter"):
        add_lora(toy.pipe.unet, rank=4)


def test_the_seed_of_an_adapter_is_its_seed_and_nothing_else(toy_folders: dict[str, Path]) -> None:
    starts, scales = [], set()
    for seed in (1, 1, 2):
        unet = load(str(toy_folders["epsilon"])).pipe.unet
        starts.append(add_lora(unet, 4, seed)[0].detach().clone())
        scales |= {scale for module in unet.modules() for scale in getattr(module, "scaling", {}).values()}
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert scales == {1.0}, "an exported adapter has no alpha: other tools would scale it differently"


@pytest.fixture
def adapter(toy: Backbone, tmp_path: Path) -> Path:
    """A LoRA file on all cross-attention and feed-forward layers."""
    state = factors_for(toy.pipe.unet, ("to_q", "to_k", "to_v", "to_out.0", "net.2"))
    save_file({f"unet.{name}": value for name, value in state.items()}, tmp_path / "some name.safetensors")
    return tmp_path / "some name.safetensors"


def test_strength_scales_the_change_and_zero_is_the_base(toy: Backbone, adapter: Path) -> None:
    base = without_grad(toy)
    load_adapter(toy, adapter)
    layer = toy.pipe.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q")
    features = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    whole, plain = layer(features), layer.get_base_layer()(features)
    full = without_grad(toy)
    for strength in (0.0, 0.25, 1.0, -1.0, 2.0):
        load_adapter(toy, adapter, strength)
        layer = toy.pipe.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q")
        assert torch.allclose(layer(features) - plain, strength * (whole - plain), atol=1e-4)
        if strength == 0:
            assert torch.equal(without_grad(toy), base)
        if strength == 1:
            assert torch.equal(without_grad(toy), full)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number"):
            load_adapter(toy, adapter, wrong)


def test_backbone_and_pipeline_and_file_and_folder_are_the_same(
    toy: Backbone, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_adapter(toy, adapter)
    first = without_grad(toy)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(adapter.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (folder, str(folder), "~/folder", folder / "pytorch_lora_weights.safetensors"):
        load_adapter(toy.pipe, path)
        assert torch.equal(without_grad(toy), first)


def test_a_second_adapter_takes_the_place_of_the_first(toy: Backbone, adapter: Path, tmp_path: Path) -> None:
    base = without_grad(toy)
    other = factors_for(toy.pipe.unet, ("attn2.to_v",), rank=5, seed=1)
    save_file(other, tmp_path / "other.safetensors")
    load_adapter(toy, tmp_path / "other.safetensors")
    alone = without_grad(toy)
    load_adapter(toy, adapter)
    assert not torch.equal(without_grad(toy), alone)
    load_adapter(toy, tmp_path / "other.safetensors")
    assert torch.equal(without_grad(toy), alone) and list(toy.pipe.unet.peft_config) == [LOADED]
    with toy.reference():
        assert torch.equal(without_grad(toy), base)


def test_a_refused_adapter_leaves_the_model_as_it_was(toy: Backbone, adapter: Path, tmp_path: Path) -> None:
    load_adapter(toy, adapter)
    before = without_grad(toy)
    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(BackboneError, match="does not fit this model"):
        load_adapter(toy, tmp_path / "foreign.safetensors")
    assert torch.equal(without_grad(toy), before)


def test_an_adapter_is_not_loaded_into_a_training(toy: Backbone, adapter: Path) -> None:
    add_lora(toy.pipe.unet, rank=2)
    with pytest.raises(BackboneError, match="carries the adapter of a training"):
        load_adapter(toy, adapter)


def test_a_normal_load_says_nothing(toy: Backbone, adapter: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_adapter(toy, adapter)
    assert not caplog.records
    toy.pipe.unet.unload_lora()
    toy.pipe.load_lora_weights(adapter.parent, weight_name=adapter.name)
    assert "No LoRA keys associated to CLIPTextModel" in caplog.text, "what diffusers' own loading says is seen here"


def test_what_diffusers_loads_is_loaded_the_same(toy: Backbone, adapter: Path) -> None:
    load_adapter(toy, adapter)
    ours = without_grad(toy)
    trained = {name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad}
    toy.pipe.unet.unload_lora()
    toy.pipe.load_lora_weights(adapter.parent, weight_name=adapter.name)
    assert torch.equal(without_grad(toy), ours)
    theirs = {name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad}
    assert trained == {name.replace("default_0", LOADED) for name in theirs}


def test_the_text_encoder_is_left_alone_and_its_keys_are_named_once(
    toy: Backbone, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = kohya(factors_for(toy.pipe.unet, ("attn2.to_k",)), alpha=2.0)
    for end, shape in (("lora_down", (2, 32)), ("lora_up", (32, 2))):
        state[f"lora_te_text_model_encoder_layers_0_self_attn_q_proj.{end}.weight"] = torch.ones(shape)
    save_file(state, tmp_path / "with text.safetensors")
    before = {name: value.clone() for name, value in toy.pipe.text_encoder.state_dict().items()}
    load_adapter(toy, tmp_path / "with text.safetensors")
    (warning,) = [line for line in caplog.records if line.name.startswith("spf_lite")]
    assert warning.levelno == logging.WARNING
    assert "left out 2 keys of text encoders" in warning.message
    assert warning.message.count("layers.0.self_attn") == 2
    after = toy.pipe.text_encoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
