import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

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
    sample,
)


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


def test_latents_have_an_eighth_of_the_size(toy: Backbone) -> None:
    images = torch.rand(2, 3, 64, 64)
    latents = encode_images(toy.pipe, images)
    assert latents.shape == (2, 4, 8, 8)
    latents.requires_grad_(True)
    decode_latents(toy.pipe, latents).sum().backward()
    assert latents.grad is not None


def test_clip_measures_phrases_and_pictures(toy: Backbone) -> None:
    distances = toy.clip.phrase_distances(["red hair", "sunglasses"], "sunglasses")
    assert distances[1].item() == pytest.approx(0, abs=1e-5) and distances[0] > 0
    assert toy.clip.phrase_distances([], "sunglasses").shape == (0,)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    features = toy.clip.image_features(images)
    assert torch.allclose(features.norm(dim=-1), torch.ones(2), atol=1e-5)
    features[:, 0].sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_facts_are_found_by_name(toy_folders: dict[str, Path]) -> None:
    assert facts_of("sd15").source.endswith("stable-diffusion-v1-5")
    assert facts_of(str(toy_folders["epsilon"])).clip == str(toy_folders["epsilon"] / "clip")
    assert spf_lite.load is load


def test_models_that_cannot_be_used_are_refused(toy: Backbone, toy_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no Stable Diffusion model in .*nowhere"):
        load(str(tmp_path / "nowhere"))
    index = json.loads((toy_folders["epsilon"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BackboneError, match="cannot be loaded as a Stable Diffusion pipeline"):
        load(str(tmp_path))
    deaf = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        check_cross_attention(deaf)
