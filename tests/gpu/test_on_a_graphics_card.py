"""From the model to the measures on a graphics card: no tensor stays on the CPU where it should not.

The device is simulated (``pretend_gpu.py``), so the tests run everywhere.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.data import encoding
from spf_lite.data.batch import collate
from spf_lite.data.encoding import custom_items, reference_items, reference_latents
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.measuring import measure_on, sample_evaluation_set
from spf_lite.method.control_map import averaged_maps
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.adapters.lora import add_lora, load_adapter
from spf_lite.models.backbone import Backbone, best_device, load
from spf_lite.models.codec import decode_latents, encode_images, to_tensor
from spf_lite.models.running.sampling import sample
from spf_lite.pretrain.check import held_out_accuracy
from spf_lite.profiling.cost import training_costs
from spf_lite.pure_pairs import reading, repaint
from spf_lite.training import stage2
from spf_lite.training.recipes import recipe
from spf_lite.training.trainer import DualPathTrainer
from spf_lite.viz.plots import tinted
from spf_lite.widgets import AttentionExplorer, ControlMapExplorer
from spf_lite.widgets.explorer_data import attention_items, control_map_items

from ..conftest import load_toy
from .pretend_gpu import CUDA, PretendGpu

#: Every loss term at once.
ALL_TERMS = TrainConfig(
    batch_size=3,
    weight_text=1.0,
    weight_fine=1.0,
    weight_enhancement=1.0,
    weight_output=1.0,
    weight_reconstruction=1.0,
    weight_prior=1.0,
    weight_purecc=1.0,
    reference_portraits=2,
)


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    """A simulated device during each test. Accelerate keeps the device of a process's first run: reset that."""
    AcceleratorState._reset_state(True)
    with PretendGpu():
        yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def three(custom_set: CustomSet) -> CustomSet:
    """Three portraits, each with a mask."""
    examples = [replace(example, mask=Image.new("RGB", example.image.size, "white")) for example in custom_set]
    return replace(custom_set, examples=tuple(examples[:3]))


def test_a_model_is_loaded_onto_the_device_by_default(toy: Backbone) -> None:
    assert best_device() == CUDA == toy.pipe.device
    modules = (toy.pipe.unet, toy.pipe.vae, toy.pipe.text_encoder, toy.clip.model)
    assert {tensor.device for module in modules for tensor in (*module.parameters(), *module.buffers())} == {CUDA}


def test_portraits_are_sampled_and_encoded(backbone: Backbone) -> None:
    latents = sample(backbone, ["a person"], seeds=[0], steps=2, output_type="latent")
    assert latents.device == CUDA == decode_latents(backbone.pipe, latents).device
    (image,) = sample(backbone, ["a person"], seeds=[0], steps=2)
    assert encode_images(backbone.pipe, to_tensor([image])).device == CUDA


def test_a_seed_gives_the_same_portrait_on_cpu_and_device(toy: Backbone, toy_folders: dict[str, Path]) -> None:
    elsewhere = load(str(toy_folders["v_prediction"]), device="cpu")
    sampled = [sample(one, ["a person"], seeds=[3], steps=2)[0] for one in (toy, elsewhere)]
    assert np.array_equal(np.asarray(sampled[0]), np.asarray(sampled[1])), "the noise is made on the CPU"


def test_one_step_of_each_stage_by_hand(backbone: Backbone, three: CustomSet) -> None:
    parameters = add_lora(backbone.pipe.unet, rank=2)
    items = custom_items(backbone, three, enhance=True)
    texts = [(example.base_text, None) for example in three]
    items += reference_items(backbone, texts, reference_latents(backbone, texts, 1, seed=0), items[0])
    batch = collate(items, [False, False, False, True]).to(CUDA)
    noise, timesteps = torch.randn(batch.latents.shape).to(CUDA), torch.tensor([10, 200, 500, 900]).to(CUDA)
    naive_step(backbone, batch, noise, timesteps).terms["denoise"].mean().backward()
    with dual_path_step(backbone, batch, noise, timesteps, ALL_TERMS, lambda noisy, _: noisy) as step:
        torch.stack([term.mean() for term in step.terms.values()]).sum().backward()
    assert {parameter.grad.device for parameter in parameters if parameter.grad is not None} == {CUDA}
    assert step.control is not None and step.control.map.device == CUDA
    tinted(three[0].image, step.control.map[0, 0])


def test_averaged_maps_are_on_the_device(toy: Backbone, three: CustomSet) -> None:
    add_lora(toy.pipe.unet, rank=2)
    assert averaged_maps(toy, custom_items(toy, three), ALL_TERMS).device == CUDA


@pytest.mark.parametrize(
    "name",
    [
        "naive",
        "adalora",
        "prior-preservation",
        "given-mask",
        "purecc,trainable=adalora",
        "paper-weights",
        "spf-no-map",
        "spf-token-map",
        "spf,gradient_checkpointing=True,gradient_accumulation=3",
        "pure-pairs",
    ],
)
def test_a_resumed_run_and_its_exported_adapter_are_on_the_device(
    name: str, toy_folders: dict[str, Path], three: CustomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage2, "SCALE_BATCHES", 1)
    monkeypatch.setattr(encoding, "sample", partial(sample, steps=1))
    monkeypatch.setattr(repaint, "STEPS", 1)
    monkeypatch.setattr(reading, "DRAWS", (1, 1))
    full = recipe(name)
    config = replace(
        full,
        stage1_steps=min(1 if full.stage2_steps else 3, full.stage1_steps),
        stage2_steps=min(3, full.stage2_steps),
        reference_portraits=min(2, full.reference_portraits),
        batch_size=3,
        rank=2,
        pure_pairs=min(1, full.pure_pairs),
        map_draws=1,
        checkpoint_every=1,
    )

    def stop(step: int, _: object) -> None:
        if step == config.steps - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DualPathTrainer(load_toy(toy_folders["epsilon"]), three, config, tmp_path).fit(progress=False, on_step=stop)
    trainer = DualPathTrainer(load_toy(toy_folders["epsilon"]), three, config, tmp_path)
    trainer.fit(resume=True, progress=False)
    assert {parameter.device for parameter in trainer.parameters} == {CUDA}
    fresh = load_toy(toy_folders["epsilon"])
    load_adapter(fresh.pipe, trainer.export(tmp_path / "adapter"))
    assert {parameter.device for parameter in fresh.pipe.unet.parameters()} == {CUDA}
    sample(fresh, ["a person"], seeds=[0], steps=1)


def test_explorers_take_tensors_from_the_device(toy: Backbone, three: CustomSet) -> None:
    ControlMapExplorer(control_map_items(toy, custom_items(toy, three)[:1], [100, 500])).snapshot()
    AttentionExplorer(attention_items(toy, ["a person"], [0], [100])).snapshot()


def test_a_tuned_model_is_measured(toy: Backbone) -> None:
    evaluation_set = sample_evaluation_set(toy, "sunglasses", 1, steps=1)
    assert "CLIP-T" in measure_on(toy, Judge(JudgeNet(width=8)), [evaluation_set]).estimates()


def test_the_judge_is_checked_through_an_autoencoder_on_the_device(toy: Backbone) -> None:
    assert held_out_accuracy(toy.pipe.vae, Judge(JudgeNet(width=8)), 2)


def test_costs_are_measured(toy: Backbone) -> None:
    assert len(training_costs(toy, "toy", batch_size=1, rounds=1, steps=1)) == 4
