import pytest
import torch
from PIL import Image

from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import decode_latents, encode_images, encode_text, to_tensor


def test_latents_have_an_eighth_of_the_size(toy: Backbone) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    latents = encode_images(toy.pipe, images)
    assert latents.shape == (2, 4, 8, 8) and not latents.requires_grad
    latents.requires_grad_(True)
    decoded = decode_latents(toy.pipe, latents)
    assert decoded.shape == images.shape
    decoded.sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0


def test_encoding_and_decoding_follow_the_pipelines_own_conventions(toy: Backbone) -> None:
    """Images in [-1, 1] for the autoencoder, latents times its scaling factor for the UNet."""
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    factor = toy.pipe.vae.config.scaling_factor
    with torch.no_grad():
        mean = toy.pipe.vae.encode(images * 2 - 1).latent_dist.mean
        assert torch.equal(encode_images(toy.pipe, images), mean * factor)
        decoded = toy.pipe.vae.decode(mean).sample
        assert torch.allclose(decode_latents(toy.pipe, mean * factor), decoded / 2 + 0.5, atol=1e-5)


def test_texts_are_encoded_as_the_pipeline_encodes_them(toy: Backbone) -> None:
    tokens = toy.pipe.tokenizer("a person, smiling", padding="max_length", max_length=32, return_tensors="pt")
    expected, _ = toy.pipe.encode_prompt("a person, smiling", "cpu", 1, do_classifier_free_guidance=False)
    found = encode_text(toy.pipe, tokens.input_ids)
    assert torch.equal(found, expected) and not found.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_leaves_the_frozen_parts_is_float32(toy: Backbone, dtype: torch.dtype) -> None:
    for module in (toy.pipe.vae, toy.pipe.text_encoder):
        module.to(dtype)
    latents = encode_images(toy.pipe, torch.rand(1, 3, 64, 64))
    assert latents.dtype == decode_latents(toy.pipe, latents).dtype == torch.float32
    assert encode_text(toy.pipe, torch.zeros(1, 32, dtype=torch.long)).dtype == torch.float32


def test_images_become_tensors_of_one_size() -> None:
    red, gray = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("L", (16, 16), 51)
    tensor = to_tensor([red, gray], size=8)
    assert tensor.shape == (2, 3, 8, 8) and tensor.dtype == torch.float32
    assert tensor[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert torch.allclose(tensor[1], torch.full((3, 8, 8), 0.2))
    assert to_tensor([gray]).shape == (1, 3, 16, 16)
