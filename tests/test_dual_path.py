from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from spf_lite.control_map import ControlMapOptions
from spf_lite.dual_path import Batch, Item, Step, collate, dual_path_step, naive_step, training_target
from spf_lite.pipelines import Backbone, add_lora
from spf_lite.prompts import encode_pair

BASE = "a person, red curly hair, blue hoodie"


def item(backbone: Backbone, base: str = BASE, is_reference: bool = False) -> Item:
    pair = encode_pair(backbone.pipe.tokenizer, base, "sunglasses")
    generator = torch.Generator().manual_seed(len(base))
    features = torch.nn.functional.normalize(torch.randn(2, 24, generator=generator), dim=-1)
    distances = torch.rand(len(pair.phrases), generator=generator)
    latents = torch.randn(4, 8, 8, generator=generator)
    return Item(latents, pair, distances, features[0], features[1], is_reference)


def step(backbone: Backbone, batch: Batch, timestep: int = 300, **options: object) -> Step:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.full((len(batch.latents),), timestep)
    return dual_path_step(backbone, batch, noise, timesteps, ControlMapOptions(), **options)  # type: ignore[arg-type]


def test_a_batch_is_filled_up_with_what_counts_for_nothing(toy: Backbone) -> None:
    long, short = item(toy), item(toy, "a person")
    batch = collate(toy, [long, short], [False, False])
    assert batch.phrases.shape == (2, 3, 32) and batch.distances.shape == (2, 3)
    assert batch.phrases[1, 1:].sum() == 0 and batch.distances[1, 1:].sum() == 0
    assert batch.phrases.sum(dim=-1).flatten().tolist() == pytest.approx([1, 1, 1, 1, 0, 0]), "each row is an average"
    assert batch.aligned.sum(dim=1).tolist() == [len(long.pair.alignment), len(short.pair.alignment)]
    for row, single in enumerate((long, short)):
        pairs = zip(batch.base_tokens[row].tolist(), batch.complete_tokens[row].tolist(), strict=True)
        real = [pair for pair, counts in zip(pairs, batch.aligned[row], strict=True) if counts]
        assert real == list(single.pair.alignment)
        assert batch.target[row].nonzero().flatten().tolist() == list(single.pair.target.tokens)


def test_a_reconstruction_item_is_fed_the_base_text_on_both_paths(toy: Backbone) -> None:
    batch = collate(toy, [item(toy), item(toy)], [True, False])
    assert torch.equal(batch.base[0], batch.complete[0]) and not torch.equal(batch.base[1], batch.complete[1])
    assert torch.equal(batch.base_tokens[0], batch.complete_tokens[0])
    assert batch.target[0].sum() == 0
    assert batch.is_reconstruction.tolist() == [True, False]


def test_reference_portraits_do_not_teach_the_target(toy: Backbone) -> None:
    add_lora(toy.pipe.unet, rank=2)
    custom, own = item(toy), replace(item(toy, "a person, smiling"), is_reference=True)
    both = step(toy, collate(toy, [custom, own], [False, False]))
    loud = step(toy, collate(toy, [custom, replace(own, latents=own.latents * 5)], [False, False]))
    assert loud.terms["denoise"].item() == pytest.approx(both.terms["denoise"].item())
    assert loud.terms["output"].item() != pytest.approx(both.terms["output"].item()), "but they are aligned"
    lonely = step(toy, collate(toy, [own, own], [True, False]), enhance=True)
    assert lonely.terms["denoise"].item() == 0 and lonely.terms["enhancement"].item() == 0


def test_one_step_predictions_are_trusted_at_low_noise_only(toy: Backbone) -> None:
    add_lora(toy.pipe.unet, rank=2)
    batch = collate(toy, [item(toy)], [False])
    assert step(toy, batch, 699, enhance=True).terms["enhancement"].item() > 0
    assert step(toy, batch, 700, enhance=True).terms["enhancement"].item() == 0
    assert "enhancement" not in step(toy, batch).terms


def test_without_a_map_everything_is_kept(toy: Backbone) -> None:
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter += 0.2
    batch = collate(toy, [item(toy)], [False])
    terms = {source: step(toy, batch, map_source=source).terms for source in ("sfcm", "token", "none")}
    for name in ("output", "text", "fine"):
        assert terms["none"][name] > terms["sfcm"][name] > 0
        assert terms["none"][name] > terms["token"][name] > 0
    assert len({values["denoise"].item() for values in terms.values()}) == 1


def test_no_gradient_reaches_the_reference(toy: Backbone) -> None:
    parameters = add_lora(toy.pipe.unet, rank=2)
    result = step(toy, collate(toy, [item(toy)], [False]), enhance=True)
    sum(result.terms.values()).backward()  # type: ignore[union-attr]
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    trained = {id(parameter) for parameter in parameters}
    for module in (toy.pipe.unet, toy.pipe.vae, toy.pipe.text_encoder, toy.clip.model):
        assert all(weight.grad is None for weight in module.parameters() if id(weight) not in trained)
    assert result.control is not None and not result.control.map.requires_grad


def test_stage_one_is_ordinary_fine_tuning(backbone: Backbone) -> None:
    batch = collate(backbone, [item(backbone)], [False])
    noise, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    result = naive_step(backbone, batch, noise, timesteps)
    noisy = backbone.pipe.scheduler.add_noise(batch.latents, noise, timesteps)
    prediction = backbone.pipe.unet(noisy, timesteps, batch.complete).sample
    velocity = backbone.pipe.scheduler.get_velocity(batch.latents, noise, timesteps)
    target = noise if backbone.pipe.scheduler.config.prediction_type == "epsilon" else velocity
    assert result.control is None
    assert result.terms["denoise"].item() == pytest.approx((prediction - target).square().mean().item(), rel=1e-4)


def test_other_prediction_types_are_refused() -> None:
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match="'sample' is not supported: expected epsilon or v_prediction"):
        training_target(scheduler, torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([0]))
