import pytest
import torch

from spf_lite.data.texts import encode_texts
from spf_lite.method.paths import CHUNK, reference_predictions
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents
from spf_lite.pure_pairs import rewrite as module
from spf_lite.pure_pairs.rewrite import GUIDANCE, STEPS, TIMES, rewrite

from ..method.conftest import train

OWN, ASKED = ["a person, red curly hair"] * 2, ["a person, red bun hair"] * 2


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def portraits() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_only_the_places_change(toy: Backbone) -> None:
    places = torch.zeros(2, 1, 8, 8)
    places[0, :, :4], places[1, :, 2:5, 3:] = 1, 1
    edited = rewrite(toy, portraits(), places, OWN, ASKED, generator())
    inside = places.expand_as(edited) == 1
    assert torch.equal(edited[~inside], portraits()[~inside])
    assert float((edited - portraits())[inside].abs().mean()) > 1e-4


def test_the_same_text_changes_nothing(toy: Backbone) -> None:
    edited = rewrite(toy, portraits(), torch.ones(2, 1, 8, 8), OWN, OWN, generator())
    assert torch.allclose(edited, portraits(), atol=1e-4), "the errors of both predictions cancel"


def test_one_step_is_the_formula(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 1)
    latents, places = portraits(), torch.full((2, 1, 8, 8), 0.5)
    noise = torch.randn(latents.shape, generator=generator())
    scheduler = toy.pipe.scheduler
    times = torch.full((2,), int(TIMES[0] * scheduler.config.num_train_timesteps))
    noisy = add_noise(scheduler, latents, noise, times)
    own, asked = (reference_predictions(toy, noisy, times, encode_texts(toy, texts)) for texts in (OWN, ASKED))
    moved = predicted_latents(scheduler, own + GUIDANCE * (asked - own), noisy, times)
    expected = latents + 0.5 * (moved - predicted_latents(scheduler, own, noisy, times))
    assert torch.allclose(rewrite(toy, latents, places, OWN, ASKED, generator()), expected, atol=1e-5)


def test_what_has_been_learned_does_not_count(toy: Backbone) -> None:
    places = torch.ones(2, 1, 8, 8)
    untouched = rewrite(toy, portraits(), places, OWN, ASKED, generator())
    train(toy)
    assert torch.equal(rewrite(toy, portraits(), places, OWN, ASKED, generator()), untouched)


def test_timesteps_cover_the_interval_and_any_number_of_portraits_is_taken(
    toy: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = sorted(step * module.EVENLY % 1 for step in range(STEPS))
    assert max(b - a for a, b in zip(times, [*times[1:], 1.0], strict=True)) < 2 / STEPS
    monkeypatch.setattr(module, "STEPS", 1)
    many = portraits()[:1].expand(CHUNK + 1, -1, -1, -1)
    texts = OWN[:1] * (CHUNK + 1), ASKED[:1] * (CHUNK + 1)
    assert rewrite(toy, many, torch.ones(CHUNK + 1, 1, 8, 8), *texts, generator()).shape == many.shape
    assert rewrite(toy, many[:0], torch.ones(0, 1, 8, 8), [], [], generator()).shape == (0, 4, 8, 8)


def test_each_portrait_needs_its_places_and_both_texts(toy: Backbone) -> None:
    with pytest.raises(ValueError, match="2 portraits, 2 maps, 2 and 1 texts"):
        rewrite(toy, portraits(), torch.ones(2, 1, 8, 8), OWN, ASKED[:1], generator())
