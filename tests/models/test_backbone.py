import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spf_lite.models.adapters import add_lora, check_cross_attention
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import decode_latents, encode_images
from spf_lite.models.errors import BackboneError
from spf_lite.models.sampling import sample
from spf_lite.models.tokenizer import PromptTooLongError

from ..conftest import deaf_unet


def test_a_seed_gives_the_same_portrait_whatever_the_batch(backbone: Backbone) -> None:
    prompts = ["a person, smiling", "a person, sad", "glasses"]
    together = sample(backbone, prompts, seeds=[5, 6, 7], steps=2)
    apart = sample(backbone, prompts, seeds=[5, 6, 7], steps=2, batch_size=1)
    assert [image.size for image in together] == [(64, 64)] * 3
    for one, other in zip(together, apart, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    latents = sample(backbone, prompts, seeds=[5, 6, 7], steps=2, output_type="latent")
    assert latents.shape == (3, 4, 8, 8)
    with pytest.raises(ValueError, match="3 prompts but 2 seeds"):
        sample(backbone, prompts, seeds=[1, 2])
    with pytest.raises(ValueError, match="steps=0"):
        sample(backbone, prompts, seeds=[1, 2, 3], steps=0)


def test_latents_have_an_eighth_of_the_size(toy: Backbone) -> None:
    images = torch.rand(2, 3, 64, 64)
    latents = encode_images(toy.pipe, images)
    assert latents.shape == (2, 4, 8, 8)
    latents.requires_grad_(True)
    decode_latents(toy.pipe, latents).sum().backward()
    assert latents.grad is not None


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
    assert len(sample(toy, [" ".join(words)], seeds=[0], steps=1)) == 1
    for prompts in (["short", " ".join([*words, "sunglasses"])], ["short", "x" * 200]):
        with pytest.raises(PromptTooLongError, match="the text encoder takes 32"):
            sample(toy, prompts, seeds=[0, 1], steps=1)
    with pytest.raises(PromptTooLongError, match="'no hair hair"):
        sample(toy, ["short"], seeds=[0], steps=1, negative_prompt=" ".join(["no", *words]))
