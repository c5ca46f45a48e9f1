import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import spf_lite
from spf_lite.pipelines import (
    Backbone,
    BackboneError,
    adapters_off,
    add_lora,
    check_cross_attention,
    decode_latents,
    encode_images,
    facts_of,
    load,
    load_adapter,
    sample,
)
from spf_lite.prompts import PromptTooLongError

from .conftest import deaf_unet


def predict(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 32, 32, generator=generator)
    with torch.no_grad():
        prediction: torch.Tensor = backbone.pipe.unet(latents, 500, text).sample
    return prediction


def test_the_reference_is_the_untouched_model_to_the_bit(toy: Backbone) -> None:
    untouched = predict(toy)
    parameters = add_lora(toy.pipe.unet, rank=4)
    assert all(parameter.requires_grad for parameter in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.3
    tuned = predict(toy)
    assert not torch.equal(tuned, untouched)
    with adapters_off(toy.pipe.unet):
        assert torch.equal(predict(toy), untouched)
    assert torch.equal(predict(toy), tuned), "the adapter is back"
    with pytest.raises(KeyError), adapters_off(toy.pipe.unet):
        raise KeyError
    assert torch.equal(predict(toy), tuned), "also after an exception"


def test_a_new_adapter_changes_nothing_and_sits_on_cross_attention_only(toy: Backbone) -> None:
    untouched = predict(toy)
    state = torch.get_rng_state()
    add_lora(toy.pipe.unet, rank=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is nobody's business"
    assert torch.allclose(predict(toy), untouched, atol=1e-6)
    trainable = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    assert trainable and all(".attn2." in name for name in trainable)
    with pytest.raises(BackboneError, match="already has an adapter"):
        add_lora(toy.pipe.unet, rank=4)


def test_a_seed_gives_the_same_portrait_whatever_the_batch(backbone: Backbone) -> None:
    prompts = ["a person, smiling", "a person, sad", "glasses"]
    together = sample(backbone.pipe, prompts, seeds=[5, 6, 7], steps=2)
    apart = sample(backbone.pipe, prompts, seeds=[5, 6, 7], steps=2, batch_size=1)
    assert [image.size for image in together] == [(64, 64)] * 3
    for one, other in zip(together, apart, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    latents = sample(backbone.pipe, prompts, seeds=[5, 6, 7], steps=2, output_type="latent")
    assert latents.shape == (3, 4, 8, 8)
    with pytest.raises(ValueError, match="3 prompts but 2 seeds"):
        sample(backbone.pipe, prompts, seeds=[1, 2])
    with pytest.raises(ValueError, match="steps=0"):
        sample(backbone.pipe, prompts, seeds=[1, 2, 3], steps=0)


def test_latents_have_an_eighth_of_the_size(toy: Backbone) -> None:
    images = torch.rand(2, 3, 64, 64)
    latents = encode_images(toy.pipe, images)
    assert latents.shape == (2, 4, 8, 8)
    latents.requires_grad_(True)
    decode_latents(toy.pipe, latents).sum().backward()
    assert latents.grad is not None


def test_facts_are_found_by_name(toy_folders: dict[str, Path]) -> None:
    assert facts_of("sd15").source.endswith("stable-diffusion-v1-5")
    assert facts_of(str(toy_folders["epsilon"])).clip == str(toy_folders["epsilon"] / "clip")
    assert spf_lite.load is load
    assert load(str(toy_folders["epsilon"])).facts.attention_resolution == 8, "no layer is larger than its latents"


def test_models_that_cannot_be_used_are_refused(toy: Backbone, toy_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no Stable Diffusion model in .*nowhere"):
        load(str(tmp_path / "nowhere"))
    index = json.loads((toy_folders["epsilon"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BackboneError, match="cannot be loaded as a Stable Diffusion pipeline"):
        load(str(tmp_path))


def test_a_unet_without_cross_attention_is_refused(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        check_cross_attention(deaf_unet())
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        add_lora(deaf_unet(), rank=2)
    folder = shutil.copytree(toy_folders["epsilon"], tmp_path / "deaf")
    deaf_unet().save_pretrained(folder / "unet")
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        load(str(folder))


def test_a_prompt_that_would_be_cut_off_is_refused(toy: Backbone) -> None:
    words = ["hair"] * 30  # and two tokens for the ends: the last that fits
    assert len(sample(toy.pipe, [" ".join(words)], seeds=[0], steps=1)) == 1
    for prompts in (["short", " ".join([*words, "sunglasses"])], ["short", "x" * 200]):
        with pytest.raises(PromptTooLongError, match="the text encoder takes 32"):
            sample(toy.pipe, prompts, seeds=[0, 1], steps=1)
    with pytest.raises(PromptTooLongError, match="'no hair hair"):
        sample(toy.pipe, ["short"], seeds=[0], steps=1, negative_prompt=" ".join(["no", *words]))


def test_the_seed_of_an_adapter_is_its_seed_and_nothing_else(toy_folders: dict[str, Path]) -> None:
    starts, scales = [], set()
    for seed in (1, 1, 2):
        unet = load(str(toy_folders["epsilon"])).pipe.unet
        starts.append(add_lora(unet, 4, seed)[0].detach().clone())
        scales |= {scale for module in unet.modules() for scale in getattr(module, "scaling", {}).values()}
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert scales == {1.0}, "an exported adapter has no alpha: other tools would scale it differently"


def test_an_adapter_that_cannot_be_loaded_is_refused(toy: Backbone, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no adapter in .*nowhere: there is no pytorch_lora_weights.safetensors"):
        load_adapter(toy.pipe, tmp_path / "nowhere")
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(BackboneError, match="does not fit this model"):
        load_adapter(toy.pipe, tmp_path)
    wide = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.lora_A.weight": torch.ones(2, 99)}
    wide |= {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.lora_B.weight": torch.ones(99, 2)}
    save_file(wide, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(BackboneError, match=r"does not fit this model: (.|\n)*size mismatch"):
        load_adapter(toy.pipe, tmp_path)
