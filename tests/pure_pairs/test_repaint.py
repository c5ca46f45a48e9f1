import pytest
import torch
from diffusers import DDIMScheduler

from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text
from spf_lite.models.tokenizer import tokenize
from spf_lite.pure_pairs.repaint import STEPS, repaint

from ..method.conftest import train

TEXTS = ["a person, red curly hair", "a person, smiling"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_inside_the_map_the_portrait_stays(toy: Backbone) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(2, 1, 8, 8)
    region[0, :, :4], region[1, :, 2:5, 3:] = 1, 1
    made = repaint(toy, latents, region, TEXTS, generator())
    inside = region.expand_as(latents) == 1
    assert torch.equal(made[inside], latents[inside])
    assert not torch.isclose(made[~inside], latents[~inside], atol=1e-3).any()
    assert torch.equal(repaint(toy, latents, torch.ones_like(region), TEXTS, generator()), latents)


def test_without_a_map_it_is_the_references_own_portrait(toy: Backbone) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=generator())
    ids = torch.tensor([tokenize(toy.pipe.tokenizer, text).ids for text in ["", "", *TEXTS]])
    expected = toy.pipe(
        prompt_embeds=encode_text(toy.pipe, ids[2:]),
        negative_prompt_embeds=encode_text(toy.pipe, ids[:2]),
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=toy.spec.guidance_scale,
        output_type="latent",
    ).images
    train(toy)  # what has been learned does not count
    made = repaint(toy, torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8), TEXTS, generator())
    assert isinstance(toy.pipe.scheduler, DDIMScheduler)
    assert torch.allclose(made, expected, atol=1e-4)


def test_what_is_outside_depends_on_what_is_inside(toy: Backbone) -> None:
    region = torch.zeros(1, 1, 8, 8)
    region[..., :4] = 1
    light, dark = (repaint(toy, torch.full((1, 4, 8, 8), v), region, TEXTS[:1], generator()) for v in (1.0, -1.0))
    assert not torch.allclose(light[..., 4:], dark[..., 4:], atol=1e-3)


def test_each_portrait_needs_a_map_and_a_text(toy: Backbone) -> None:
    with pytest.raises(ValueError, match="2 portraits, 2 maps, 1 texts"):
        repaint(toy, torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8), TEXTS[:1], generator())
