"""The way from the model to the measures, where there is a graphics card: nothing is left behind on the processor.

No test runner has a card: :mod:`tests.pretend_gpu` pretends one.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from spf_lite.averaged_map import averaged_maps
from spf_lite.batches import collate, custom_items, reference_items, reference_latents
from spf_lite.config import TrainConfig
from spf_lite.cost import sampling_costs, training_costs
from spf_lite.data import CustomSet
from spf_lite.dual_path import dual_path_step, naive_step
from spf_lite.evaluation import check_model
from spf_lite.judge import Judge, JudgeNet
from spf_lite.methods import RECIPES
from spf_lite.pipelines import (
    Backbone,
    add_lora,
    best_device,
    decode_latents,
    encode_images,
    load,
    load_adapter,
    sample,
    to_tensor,
)
from spf_lite.report import evaluation_set, measure
from spf_lite.training import DualPathTrainer
from spf_lite.widgets import AttentionExplorer, ControlMapExplorer
from spf_lite.widgets.explore import attention_items, control_map_items

from .conftest import load_toy
from .pretend_gpu import CARD, PretendGpu

#: Every loss term at once.
ALL_TERMS = TrainConfig(
    stage1_steps=1,
    stage2_steps=2,
    batch_size=4,
    rank=2,
    weight_text=1.0,
    weight_fine=1.0,
    weight_enhancement=1.0,
    trusted=1.0,
    weight_output=1.0,
    weight_reconstruction=1.0,
    weight_prior=1.0,
    weight_purecc=1.0,
    reference_portraits=3,
    reconstruction_share=0.5,
)


@pytest.fixture(autouse=True)
def card() -> Iterator[None]:
    """A card for the length of a test. Accelerate remembers the device of a process's first run."""
    AcceleratorState._reset_state(True)
    with PretendGpu():
        yield
    AcceleratorState._reset_state(True)


def test_a_model_goes_to_the_card_by_itself(toy: Backbone) -> None:
    assert best_device() == CARD == toy.pipe.device
    modules = (toy.pipe.unet, toy.pipe.vae, toy.pipe.text_encoder, toy.clip.model)
    assert {tensor.device for module in modules for tensor in (*module.parameters(), *module.buffers())} == {CARD}


def test_portraits_are_drawn_coded_and_judged(backbone: Backbone) -> None:
    (image,) = sample(backbone.pipe, ["a person"], seeds=[0], steps=2)
    latents = encode_images(backbone.pipe, to_tensor([image]))
    assert latents.device == CARD == decode_latents(backbone.pipe, latents).device
    assert sample(backbone.pipe, ["a person"], seeds=[0], steps=1, output_type="latent").device == CARD
    assert len(Judge(JudgeNet(width=8)).attributes([image])) == 1


def test_the_noise_of_a_seed_is_the_processors(toy_folders: dict[str, Path]) -> None:
    elsewhere = load(str(toy_folders["epsilon"]), device="cpu")
    pictures = [
        sample(backbone.pipe, ["a person"], seeds=[3], steps=2)[0]
        for backbone in (load_toy(toy_folders["epsilon"]), elsewhere)
    ]
    assert np.array_equal(*map(np.asarray, pictures)), "portraits in the book's text are those that a reader draws"


def test_one_step_of_each_stage_by_hand(backbone: Backbone, custom_set: CustomSet) -> None:
    parameters = add_lora(backbone.pipe.unet, rank=2)
    items = custom_items(backbone, custom_set, enhance=True)
    texts = [(example.base_text, None) for example in custom_set]
    mixed = [*items[:2], *reference_items(backbone, texts, reference_latents(backbone, texts, 2, seed=0), items[0])]
    batch = collate(mixed, [False, False, False, True]).to(CARD)
    noise, timesteps = torch.randn(batch.latents.shape).to(CARD), torch.tensor([10, 200, 500, 900]).to(CARD)
    naive_step(backbone, batch, noise, timesteps).terms["denoise"].mean().backward()
    with dual_path_step(backbone, batch, noise, timesteps, ALL_TERMS, lambda noisy, _: noisy) as step:
        torch.stack([term.mean() for term in step.terms.values()]).sum().backward()
    assert step.control is not None and step.control.map.device == CARD
    assert {parameter.grad.device for parameter in parameters if parameter.grad is not None} == {CARD}


@pytest.mark.parametrize("source", ["sfcm", "token", "none", "given", "averaged"])
def test_every_map_masks_the_losses(toy: Backbone, custom_set: CustomSet, source: str) -> None:
    masked = [replace(e, mask=Image.new("RGB", e.image.size, "white")) for e in custom_set]
    config = replace(ALL_TERMS, map_source=source, denoise_outside=0.0)
    trainer = DualPathTrainer(toy, replace(custom_set, examples=tuple(masked)), config)
    assert len(trainer.fit(progress=False).history) == config.steps


@pytest.mark.parametrize("name", [*RECIPES, "spf,trainable=adalora", "spf,gradient_checkpointing=True"])
def test_every_recipe_trains_and_its_adapter_fits(
    name: str, toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    known, *changes = name.split(",")
    short = replace(
        RECIPES[known], batch_size=4, rank=2, reference_portraits=min(3, RECIPES[known].reference_portraits)
    )
    config = replace(
        short, stage1_steps=min(2, short.stage1_steps), stage2_steps=min(2, short.stage2_steps), checkpoint_every=1
    ).changed(changes)
    masked = [replace(e, mask=Image.new("RGB", e.image.size, "white")) for e in custom_set]
    masked_set = replace(custom_set, examples=tuple(masked))

    def stop(step: int, _: object) -> None:
        if step == config.steps - 1:
            raise KeyboardInterrupt

    trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), masked_set, config, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress=False, on_step=stop)
    trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), masked_set, config, tmp_path / "run")
    trainer.fit(resume=True, progress=False)
    fresh = load_toy(toy_folders["v_prediction"])
    load_adapter(fresh.pipe, trainer.export(tmp_path / "adapter"))
    assert {parameter.device for parameter in fresh.pipe.unet.parameters()} == {CARD}
    sample(fresh.pipe, ["a person"], seeds=[0], steps=1)


def test_explorers_take_what_is_computed_there(toy: Backbone, custom_set: CustomSet) -> None:
    items = custom_items(toy, custom_set)[:1]
    ControlMapExplorer(control_map_items(toy, items, [100, 500])).map()
    AttentionExplorer(attention_items(toy, ["a person"], [0], [100])).map()


def test_a_tuned_model_is_measured(toy: Backbone) -> None:
    portraits = evaluation_set(toy, "sunglasses", 2, steps=1)
    assert "CLIP-T" in measure(toy, Judge(JudgeNet(width=8)), portraits).estimates()


def test_the_model_is_checked(toy_samples: Path) -> None:
    assert check_model(load(str(toy_samples / "tiny-portraits")), prompts=8)


def test_averaged_maps_lie_where_they_were_made(toy: Backbone, custom_set: CustomSet) -> None:
    add_lora(toy.pipe.unet, rank=2)
    assert averaged_maps(toy, custom_items(toy, custom_set), ALL_TERMS).device == CARD


def test_costs_are_measured(toy: Backbone, toy_folders: dict[str, Path]) -> None:
    assert len(training_costs(toy, "toy", batch_size=2, rounds=1, steps=1)) == 4
    assert len(sampling_costs(load_toy(toy_folders["epsilon"]), "toy", portraits=1, rounds=1, steps=1)) == 2
