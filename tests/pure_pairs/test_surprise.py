from dataclasses import replace

import pytest
import torch

from spf_lite.data.earlier import EarlierTargets
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents
from spf_lite.pure_pairs.surprise import (
    TIMES,
    Surprise,
    earlier_places,
    otsu,
    relative_surprise,
    surprise,
    surprise_map,
)
from spf_lite.pure_pairs.vocabulary import Vocabulary

from ..method.conftest import item, train

VOCABULARY = Vocabulary(["a person, red curly hair, blue hoodie, smiling", "a person, gray bun hair, red sweater, sad"])


def test_otsu_separates_two_clouds() -> None:
    values = torch.cat([torch.full((30,), 1.0), torch.full((5,), 9.0)]) + torch.linspace(0, 0.5, 35)
    threshold = otsu(values)
    assert 1.5 < float(threshold) < 9 and int((values > threshold).sum()) == 5
    assert float(otsu(values * 10 + 3)) == pytest.approx(float(threshold) * 10 + 3, rel=1e-5), "any unit"
    assert float(otsu(torch.ones(1))) == 0


def spot(row: int, column: int, height: float) -> torch.Tensor:
    """A map with one bright place of 4 x 4 on a dark ground."""
    made = torch.full((1, 12, 12), 0.1)
    made[:, row : row + 4, column : column + 4] = height
    return made


def test_the_map_is_where_the_surprise_is() -> None:
    measured = Surprise(torch.stack([spot(2, 3, 1.0), spot(6, 1, 5.0)]), {})
    assert torch.equal(surprise_map(measured, 0.7, smoothing=1), (measured.difference > 0.1).float())


def test_a_place_that_a_phrase_reaches_is_none_of_the_targets() -> None:
    difference = torch.stack([spot(2, 3, 1.0)] * 2)
    reach = torch.zeros_like(difference)
    reach[:, :, 3:5, 4:6] = 0.8
    expected = (difference > 0.1).float()
    expected[:, :, 3:5, 4:6] = 0
    assert torch.equal(surprise_map(Surprise(difference, {3: reach}), 0.7, smoothing=1), expected)
    everything = surprise_map(Surprise(difference, {3: reach}), 0.9, smoothing=1)
    assert torch.equal(everything, (difference > 0.1).float()), "0.8 of the surprise is below the limit"


def test_an_earlier_target_acts_where_it_moves_the_prediction_most() -> None:
    dark, reach = LearnedTarget("sunglasses"), torch.stack([spot(2, 3, 1.0)] * 2)
    reach[:, :, 10] = 0.3  # little, but the surprise is less
    difference = torch.full_like(reach, 0.1)
    difference[:, :, 2:4] = 1.2  # what is new lies close by
    expected = torch.zeros_like(reach)
    expected[:, :, 4:6, 3:7] = 1
    found = earlier_places(Surprise(difference, {}, {dark: reach}))
    assert list(found) == [dark] and torch.equal(found[dark], expected)


def test_the_reach_of_an_earlier_target_is_measured(toy: Backbone) -> None:
    portraits, generator = [item(toy)], torch.Generator().manual_seed(0)
    without = surprise(toy, portraits, {3: "smiling"}, VOCABULARY, generator)
    replaced, unread = LearnedTarget("a beard", ("smiling",)), LearnedTarget("hoodie " * 60)
    earlier = EarlierTargets((replaced, unread), "sunglasses", 0.5)
    found = surprise(toy, portraits, {3: "smiling"}, VOCABULARY, generator.manual_seed(0), earlier)
    assert torch.equal(found.difference, without.difference) and torch.equal(found.reach[3], without.reach[3])
    assert float(found.earlier[replaced].max()) > 0, "another text, another prediction"
    assert float(found.earlier[unread].max()) == 0, "a text that is too long is not asked for"


def test_surprise_and_reach_are_those_of_the_untouched_model(toy: Backbone) -> None:
    portraits = [item(toy), replace(item(toy, "a person, gray bun hair, red sweater"))]
    found = {3: "smiling"}
    untouched = surprise(toy, portraits, found, VOCABULARY, torch.Generator().manual_seed(0))
    train(toy)
    again = surprise(toy, portraits, found, VOCABULARY, torch.Generator().manual_seed(0))
    assert torch.equal(again.difference, untouched.difference) and torch.equal(again.reach[3], untouched.reach[3])
    assert untouched.difference.shape == (2, 1, 8, 8) and float(untouched.reach[3].min()) >= 0
    assert float(untouched.reach[3].max()) > 0, "another word, another prediction"


def test_surprise_is_the_mean_distance_of_one_step_predictions(toy: Backbone) -> None:
    portrait = item(toy)
    measured = surprise(toy, [portrait], {}, VOCABULARY, torch.Generator().manual_seed(5))
    generator, total = torch.Generator().manual_seed(5), torch.zeros(1, 1, 8, 8)
    for share in TIMES:
        noise = torch.randn(1, 4, 8, 8, generator=generator)
        time = torch.tensor([int(share * toy.pipe.scheduler.config.num_train_timesteps)])
        noisy = add_noise(toy.pipe.scheduler, portrait.latents[None], noise, time)
        with torch.no_grad():
            predicted = toy.pipe.unet(noisy, time, encoder_hidden_states=portrait.base[None]).sample
        clean = predicted_latents(toy.pipe.scheduler, predicted, noisy, time)
        total += (clean - portrait.latents).abs().mean(dim=1, keepdim=True) / len(TIMES)
    assert torch.allclose(measured.difference, total, atol=1e-5)


def test_a_style_surprises_everywhere() -> None:
    references = Surprise(torch.full((3, 1, 12, 12), 0.1), {})
    thing = Surprise(torch.stack([spot(2, 3, 1.0), spot(6, 1, 5.0)]), {})
    assert relative_surprise(thing, references, smoothing=1) == pytest.approx(1), "0.1 around the spot"
    style = Surprise(thing.difference + 0.5, {})
    assert relative_surprise(style, references, smoothing=1) == pytest.approx(6)
    one = Surprise(torch.stack([spot(2, 3, 1.0), spot(6, 1, 5.0) + 0.5]), {})
    assert relative_surprise(one, references, smoothing=1) == pytest.approx(3.5), "the mean over the portraits"
