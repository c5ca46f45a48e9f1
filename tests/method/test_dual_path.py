from dataclasses import replace

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch, Item, collate
from spf_lite.data.prompts import encode_pair
from spf_lite.method.dual_path import Step, Term, applies, dual_path_step, naive_step
from spf_lite.models.adapters import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text

BASE = "a person, red curly hair, blue hoodie"
#: Every term has a weight.
ALL = TrainConfig(
    weight_text=1.0,
    weight_fine=1.0,
    weight_output=1.0,
    weight_enhancement=1.0,
    weight_reconstruction=1.0,
    weight_prior=1.0,
    reference_portraits=1,
)


def item(backbone: Backbone, base: str = BASE, is_reference: bool = False) -> Item:
    pair = encode_pair(backbone.pipe.tokenizer, base, "sunglasses")
    generator = torch.Generator().manual_seed(len(base))
    features = torch.nn.functional.normalize(torch.randn(2, 24, generator=generator), dim=-1)
    distances = torch.rand(len(pair.phrases), generator=generator)
    latents = torch.randn(4, 8, 8, generator=generator)
    base_hidden, complete = encode_text(backbone.pipe, torch.stack([pair.base_ids, pair.complete_ids]))
    return Item(latents, pair, base_hidden, complete, distances, features[0], features[1], is_reference=is_reference)


def step(backbone: Backbone, batch: Batch, timestep: int = 300, config: TrainConfig = ALL) -> Step:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.full((len(batch),), timestep)
    with dual_path_step(backbone, batch, noise, timesteps, config) as result:
        return result


def means(result: Step) -> dict[str, float]:
    return {name: term.mean().item() for name, term in result.terms.items()}


def test_reference_portraits_do_not_teach_the_target(toy: Backbone) -> None:
    add_lora(toy.pipe.unet, rank=2)
    custom, own = item(toy), replace(item(toy, "a person, smiling"), is_reference=True)
    both = means(step(toy, collate([custom, own], [False, False])))
    loud = means(step(toy, collate([custom, replace(own, latents=own.latents * 5)], [False, False])))
    assert loud["denoise"] == pytest.approx(both["denoise"])
    assert loud["output"] != pytest.approx(both["output"]), "but they are aligned"
    lonely = step(toy, collate([own, own], [True, False]))
    assert means(lonely)["denoise"] == 0 and means(lonely)["enhancement"] == 0
    assert lonely.terms["prior"].applies.tolist() == [True, False]
    assert lonely.terms["output"].applies.tolist() == [False, True]


def test_one_step_predictions_are_trusted_at_low_noise_only(toy: Backbone) -> None:
    add_lora(toy.pipe.unet, rank=2)
    batch = collate([item(toy)], [False])
    assert means(step(toy, batch, 699))["enhancement"] > 0
    assert means(step(toy, batch, 700))["enhancement"] == 0


def test_a_term_without_a_weight_is_not_computed(toy: Backbone) -> None:
    add_lora(toy.pipe.unet, rank=2)
    result = step(toy, collate([item(toy)], [False]), config=TrainConfig(weight_output=1.0))
    assert set(result.terms) == {"denoise", "output"}
    flags = torch.tensor([False, True, True]), torch.tensor([False, False, True]), torch.tensor([900, 100, 100])
    where = applies(ALL, *flags, 1000)
    assert {name: items.tolist() for name, items in where.items()} == {
        "denoise": [True, False, False],
        "text": [True, True, False],
        "fine": [True, True, False],
        "enhancement": [False, False, False],
        "output": [True, True, False],
        "reconstruction": [False, False, True],
        "prior": [False, False, True],
    }


def test_the_mean_of_a_term_is_over_the_items_that_it_is_about() -> None:
    term = Term(torch.tensor([1.0, 2.0, 60.0]), torch.tensor([True, True, False]))
    assert term.mean().item() == 1.5
    assert Term(torch.ones(2), torch.zeros(2, dtype=torch.bool)).mean().item() == 0


def test_what_the_losses_are_masked_with(toy: Backbone) -> None:
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter += 0.2
    region = torch.zeros(1, 8, 8)
    region[:, :2] = 1
    batch = collate([replace(item(toy), region=region)], [False])
    results = {
        source: step(toy, batch, config=replace(ALL, map_source=source))
        for source in ("sfcm", "averaged", "token", "given", "none")
    }
    for name in ("output", "text", "fine"):
        for source in ("sfcm", "token", "given"):
            assert means(results["none"])[name] > means(results[source])[name] > 0
    assert len({means(result)["denoise"] for result in results.values()}) == 1
    allowed = {source: result.allowed for source, result in results.items()}
    assert torch.equal(allowed["given"], batch.region) and torch.equal(allowed["averaged"], batch.region)  # type: ignore[arg-type]
    assert allowed["none"].sum() == 0 and 0 < allowed["token"].sum() < 64  # type: ignore[union-attr]
    masked = step(toy, batch, config=replace(ALL, map_source="given", denoise_outside=0.0))
    assert means(masked)["denoise"] != pytest.approx(means(results["given"])["denoise"])


def test_no_gradient_reaches_the_reference(toy: Backbone) -> None:
    parameters = add_lora(toy.pipe.unet, rank=2)
    result = step(toy, collate([item(toy)], [False]))
    torch.stack([term.mean() for term in result.terms.values()]).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    trained = {id(parameter) for parameter in parameters}
    for module in (toy.pipe.unet, toy.pipe.vae, toy.pipe.text_encoder, toy.clip.model):
        assert all(weight.grad is None for weight in module.parameters() if id(weight) not in trained)
    assert result.control is not None and not result.control.map.requires_grad
    assert result.allowed is not None and not result.allowed.requires_grad


def test_stage_one_is_ordinary_fine_tuning(backbone: Backbone) -> None:
    batch = collate([item(backbone)], [False])
    noise, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    result = naive_step(backbone, batch, noise, timesteps)
    noisy = backbone.pipe.scheduler.add_noise(batch.latents, noise, timesteps)
    prediction = backbone.pipe.unet(noisy, timesteps, batch.complete).sample
    velocity = backbone.pipe.scheduler.get_velocity(batch.latents, noise, timesteps)
    target = noise if backbone.pipe.scheduler.config.prediction_type == "epsilon" else velocity
    assert result.control is None
    assert means(result)["denoise"] == pytest.approx((prediction - target).square().mean().item(), rel=1e-4)
