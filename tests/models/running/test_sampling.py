from dataclasses import replace

import numpy as np
import pytest
import torch

import spf_lite
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample
from spf_lite.models.tokenizer import PromptTooLongError


def test_a_seed_gives_the_same_portrait_whatever_the_batch(backbone: Backbone) -> None:
    prompts = ["a person, smiling", "a person, sad", "glasses"]
    together = sample(backbone, prompts, seeds=[5, 6, 7], steps=2)
    apart = sample(backbone, prompts, seeds=[5, 6, 7], steps=2, batch_size=1)
    assert [image.size for image in together] == [(64, 64)] * 3
    for one, other in zip(together, apart, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


def test_latents_are_given_on_request(toy: Backbone) -> None:
    latents = sample(toy, ["a", "b", "c"], seeds=[5, 6, 7], steps=2, output_type="latent")
    assert latents.shape == (3, 4, 8, 8) and torch.isfinite(latents).all()
    assert sample(toy, [], seeds=[], output_type="latent").shape == (0,) and sample(toy, [], seeds=[]) == []


def test_the_global_random_state_is_left_alone(toy: Backbone) -> None:
    state = torch.get_rng_state()
    sample(toy, ["a"], seeds=[1], steps=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_guidance_is_the_backbones_own(toy: Backbone) -> None:
    assert spf_lite.sample is sample

    def latents(backbone: Backbone, scale: float | None = None) -> torch.Tensor:
        return spf_lite.sample(backbone, ["a person"], seeds=[1], steps=2, guidance_scale=scale, output_type="latent")

    for own in (1.5, 7.5):
        backbone = Backbone(toy.pipe, replace(toy.spec, guidance_scale=own))
        assert torch.equal(latents(backbone), latents(backbone, own))
        assert not torch.allclose(latents(backbone), latents(backbone, 3.0))


def test_what_cannot_be_sampled_is_refused(toy: Backbone) -> None:
    with pytest.raises(ValueError, match="3 prompts but 2 seeds"):
        sample(toy, ["a", "b", "c"], seeds=[1, 2])
    with pytest.raises(ValueError, match="steps=0"):
        sample(toy, ["a"], seeds=[1], steps=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        sample(toy, ["a"], seeds=[1], batch_size=0)


def test_a_prompt_that_would_be_truncated_is_refused(toy: Backbone) -> None:
    words = ["hair"] * 30  # and two tokens for the ends: the longest that fits
    assert len(sample(toy, [" ".join(words)], seeds=[0], steps=1)) == 1
    for prompts in (["short", " ".join([*words, "sunglasses"])], ["short", "x" * 200]):
        with pytest.raises(PromptTooLongError, match="the text encoder takes 32"):
            sample(toy, prompts, seeds=[0, 1], steps=1)
    with pytest.raises(PromptTooLongError, match="'no hair hair"):
        sample(toy, ["short"], seeds=[0], steps=1, negative_prompt=" ".join(["no", *words]))
