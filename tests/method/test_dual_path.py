from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from spf_lite.choices import MAPS, WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch, collate
from spf_lite.method.control_map import control_map
from spf_lite.method.dual_path import Step, applies, dual_path_step, naive_step
from spf_lite.method.paths import both_paths
from spf_lite.method.purecc import Extractor
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord, Recorder
from spf_lite.models.diffusion import add_noise, predicted_latents, training_target
from spf_lite.training.recipes import RECIPES, recipe

from .conftest import ALL, autocast, gradients, item, train

#: Every term has a weight.
EVERY_TERM = replace(ALL, weight_purecc=1.0)
#: What PureCC's extractor would give.
CONCEPT = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def step(backbone: Backbone, batch: Batch, timestep: int = 300, config: TrainConfig = EVERY_TERM) -> Step:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.full((len(batch),), timestep)
    with dual_path_step(backbone, batch, noise, timesteps, config, lambda noisy, _: CONCEPT.expand_as(noisy)) as result:
        return result


def means(result: Step) -> dict[str, float]:
    return {name: term.mean().item() for name, term in result.terms.items()}


def test_reference_portraits_do_not_teach_the_target(toy: Backbone) -> None:
    train(toy)
    custom, own = item(toy), replace(item(toy, "a person, smiling"), is_reference=True)
    both = means(step(toy, collate([custom, own], [False, False])))
    changed = means(step(toy, collate([custom, replace(own, latents=own.latents * 5)], [False, False])))
    assert changed["denoise"] == pytest.approx(both["denoise"])
    assert changed["output"] != pytest.approx(both["output"]), "but they are aligned"
    without_custom = step(toy, collate([own, own], [True, False]))
    assert means(without_custom)["denoise"] == 0 and means(without_custom)["enhancement"] == 0
    assert without_custom.terms["prior"].applies.tolist() == [True, False]
    assert without_custom.terms["output"].applies.tolist() == [False, True]


def test_enclosed_places_weigh_in_output_alignment_alone(toy: Backbone) -> None:
    train(toy)
    region = torch.zeros(1, 8, 8)
    region[:, 1:6, 1:6] = 1
    region[:, 3, 3] = 0
    own = replace(item(toy, "a person, smiling"), is_reference=True)
    batch = collate([replace(item(toy), region=region), replace(own, region=region)], [False, True])
    given = replace(EVERY_TERM, map_source="given")
    plain, weighted = (means(step(toy, batch, config=replace(given, enclosed=weight))) for weight in (1.0, 9.0))
    assert weighted.pop("output") > 1.05 * plain.pop("output")
    assert weighted == plain, "the reconstruction of the second item has no map, so nothing is enclosed"


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
    where = applies(EVERY_TERM, *flags, 1000)
    assert {name: items.tolist() for name, items in where.items()} == {
        "denoise": [True, False, False],
        "text": [True, True, False],
        "fine": [True, True, False],
        "enhancement": [False, False, False],
        "output": [True, True, False],
        "reconstruction": [False, False, True],
        "prior": [False, False, True],
        "purecc": [True, True, False],
    }


def test_what_the_losses_are_masked_with(toy: Backbone) -> None:
    train(toy)
    region = torch.zeros(1, 8, 8)
    region[:, :2] = 1
    batch = collate([replace(item(toy), region=region)], [False])
    results = {
        source: step(toy, batch, config=replace(EVERY_TERM, map_source=source))
        for source in ("sfcm", "averaged", "token", "given", "none")
    }
    for name in ("output", "text", "fine"):
        for source in ("sfcm", "token", "given"):
            assert means(results["none"])[name] > means(results[source])[name] > 0
    assert len({means(result)["denoise"] for result in results.values()}) == 1
    allowed = {source: result.allowed for source, result in results.items() if result.allowed is not None}
    assert set(allowed) == set(results)
    assert torch.equal(allowed["given"], batch.region) and torch.equal(allowed["averaged"], batch.region)
    assert allowed["none"].sum() == 0 and 0 < allowed["token"].sum() < 64
    masked = step(toy, batch, config=replace(EVERY_TERM, map_source="given", denoise_outside=0.0))
    assert means(masked)["denoise"] != pytest.approx(means(results["given"])["denoise"])


#: Forward passes of the UNet in one step of stage 2, in order, for every recipe that has a stage 2.
BOTH = ["reference, recorded", "response, recorded"]
PASSES = {
    "prior-preservation": ["response"],
    "given-mask": ["reference", "response"],
    "purecc": ["extractor", "extractor", "reference", "response"],
    "paper": BOTH,
    "paper-sum": BOTH,
    "paper-weights": BOTH,
    "spf": BOTH,
    "spf-no-text": BOTH,
    "spf-no-fine": BOTH,
    "spf-no-enhancement": BOTH,
    "spf-no-map": BOTH,
    "spf-soft-map": BOTH,
    "spf-step-map": BOTH,
    "spf-token-map": BOTH,
    "paper-weights-anchors": BOTH,
    **dict.fromkeys(("naive-anchors", "given-mask-anchors"), ["reference", "response"]),
    **{name: ["reference", "response"] for name in RECIPES if name.startswith("pure-pairs")},
    **dict.fromkeys(("pure-pairs-text", "pure-pairs-fine"), BOTH),
    # Changes that leave less to compute.
    "spf,weight_text=0,weight_fine=0": ["reference", "response"],
    "spf-step-map,weight_text=0,weight_fine=0": ["reference, recorded", "response"],
    "spf-token-map,weight_text=0,weight_fine=0": ["reference", "response, recorded"],
    "spf,weight_text=0,weight_fine=0,weight_output=0,weight_reconstruction=0": ["response"],
    "paper,weight_text=0,weight_fine=0": ["response"],
}
#: Those that make a control map in the step itself.
MAKES_A_MAP = {
    "paper",
    "paper-sum",
    "paper-weights",
    "paper-weights-anchors",
    "spf-step-map",
    "spf-step-map,weight_text=0,weight_fine=0",
}


def test_every_recipe_with_a_stage_2_is_counted() -> None:
    assert {name for name, config in RECIPES.items() if config.stage2_steps} == {n for n in PASSES if "," not in n}


@pytest.mark.parametrize("name", PASSES)
def test_a_recipe_computes_only_what_its_terms_need(toy: Backbone, name: str) -> None:
    config = recipe(name)
    trained = train(toy, config.trainable)
    extractor = Extractor(toy, trained, trained.state(), "sunglasses")
    batch = collate([item(toy), item(toy, "a person, smiling", is_reference=True)], [False, True])
    passes: list[str] = []

    def watch(unet: UNet2DConditionModel, _: object, options: dict[str, Tensor]) -> None:
        text = options["encoder_hidden_states"]
        known = {"reference": batch.base, "response": batch.complete}
        path = next((path for path, given in known.items() if torch.equal(text, given)), "extractor")
        layers = [layer for key, layer in unet.named_modules() if key.endswith("attn2")]
        recorded = {isinstance(layer.processor, Recorder) for layer in layers}
        assert len(recorded) == 1
        passes.append(path + ", recorded" * recorded.pop())

    toy.pipe.unet.register_forward_pre_hook(watch, with_kwargs=True)
    noise, timesteps = torch.randn(batch.latents.shape), torch.tensor([300, 300])
    with dual_path_step(toy, batch, noise, timesteps, config, extractor) as result:
        gradients(torch.stack([term.mean() for term in result.terms.values()]).sum(), trained)
    assert passes == PASSES[name]
    assert (result.control is not None) == (name in MAKES_A_MAP)


@pytest.mark.parametrize("source", MAPS)
def test_a_term_has_the_same_value_whatever_else_is_computed(toy: Backbone, source: str) -> None:
    train(toy)
    region = (torch.arange(64).reshape(1, 8, 8) % 8 < 4).float()
    custom = replace(item(toy), region=region)
    batch = collate([custom, item(toy, "a person, smiling", is_reference=True)], [False, True])
    everything = replace(EVERY_TERM, map_source=source, denoise_outside=0.5)
    expected = step(toy, batch, config=everything).terms
    assert set(expected) == set(WEIGHTS)
    weights = {field.name: 0.0 for field in fields(TrainConfig) if field.name.startswith("weight_")}
    for name, option in WEIGHTS.items():
        alone: dict[str, Any] = {**weights, option: 1.0}
        found = step(toy, batch, config=replace(everything, **alone)).terms
        assert list(found) == [name]
        # Recorded layers compute attention with other kernels: the values agree up to rounding.
        assert found[name].mean().item() == pytest.approx(expected[name].mean().item(), rel=1e-4)
        assert expected[name].mean() > 0


def test_under_autocast_losses_and_control_map_are_computed_in_float32(toy: Backbone) -> None:
    """The paths compute in bfloat16; from what they give, everything is as if computed with more digits."""
    train(toy)
    batch = collate([item(toy)], [False])
    noise, timesteps = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([300])
    scheduler, config = toy.pipe.scheduler, replace(EVERY_TERM, denoise_outside=0.5)
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    with autocast("bf16"):
        result = step(toy, batch, config=config)
        paths = both_paths(
            toy, noisy, timesteps, batch.base, batch.complete, record_reference=True, record_response=True
        )
        with paths as (reference, response):
            latents = predicted_latents(scheduler, response.prediction, noisy, timesteps)
            seen = toy.clip.image_features(toy.decode_preview(latents).float().clamp(-0.2, 1.2))
    assert {layer.queries.dtype for layer in response.layers.values()} == {torch.bfloat16}

    control = control_map(
        response.prediction, reference.prediction, reference.layers, batch.phrases, batch.distances, config.control
    )
    assert result.control is not None and torch.equal(result.control.phrase_maps, control.phrase_maps)
    assert torch.equal(result.control.map, control.map) and control.map.dtype == torch.float32

    keep, res, ref = 1 - control.map.double(), response.prediction.double(), reference.prediction.double()
    pairs = [(response.layers[name], reference.layers[name]) for name in reference.layers]

    def text(tuned: LayerRecord, original: LayerRecord) -> Tensor:
        mine = tuned.maps[0].double()[..., batch.complete_tokens[0]]
        other = original.maps[0].double()[..., batch.base_tokens[0]]
        return (keep.flatten()[None, :, None] * (mine - other)).square().mean()

    def fine(tuned: LayerRecord, original: LayerRecord) -> Tensor:
        return (keep.flatten()[:, None] * (tuned.inputs[0].double() - original.inputs[0].double())).square().mean()

    error = (res - training_target(scheduler, batch.latents, noise, timesteps).double()).square()
    weight = (1 - keep + 0.5 * keep).expand_as(error)
    concept, target = CONCEPT.double(), F.normalize(batch.target_features.double(), dim=-1)
    portrait = batch.portrait_features.double()
    strength = ((res - ref) * concept).sum() / concept.square().sum()
    expected = {
        "denoise": (error * weight).sum() / weight.sum(),
        "text": torch.stack([text(*pair) for pair in pairs]).mean(),
        "fine": torch.stack([fine(*pair) for pair in pairs]).mean(),
        "output": (keep * (res - ref)).square().mean(),
        "purecc": (res - ref - strength * concept).square().mean(),
        "enhancement": 1 - F.cosine_similarity(seen.double() - target, portrait - target).mean(),
    }
    for name, value in expected.items():
        assert result.terms[name].values.dtype == torch.float32
        assert result.terms[name].values.item() == pytest.approx(value.item(), rel=2e-5), name


def test_under_autocast_stage_1_is_computed_in_float32(toy: Backbone) -> None:
    train(toy)
    batch, noise, timesteps = collate([item(toy)], [False]), torch.randn(1, 4, 8, 8), torch.tensor([500])
    target = training_target(toy.pipe.scheduler, batch.latents, noise, timesteps)
    noisy = add_noise(toy.pipe.scheduler, batch.latents, noise, timesteps)
    with autocast("bf16"):
        values = naive_step(toy, batch, noise, timesteps).terms["denoise"].values
        prediction = toy.pipe.unet(noisy, timesteps, batch.complete).sample
    assert values.dtype == torch.float32
    assert values.item() == pytest.approx((prediction.double() - target.double()).square().mean().item(), rel=1e-5)


def test_purecc_without_its_extractor_is_refused(toy: Backbone) -> None:
    batch, config = collate([item(toy)], [False]), TrainConfig(weight_purecc=1.0)
    with (
        pytest.raises(ValueError, match="weight_purecc needs concept"),
        dual_path_step(toy, batch, torch.randn(1, 4, 8, 8), torch.tensor([300]), config),
    ):
        pass


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
