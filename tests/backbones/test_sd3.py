"""Stable Diffusion 3: joint attention, a rectified flow, two CLIP text encoders and T5, which may be missing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.texts import encode_texts, text_pair
from spf_lite.method.attention import record
from spf_lite.models.backbone import load
from spf_lite.models.backbones.sd3 import T5_LENGTH, StableDiffusion3
from spf_lite.models.codec import decode_latents, encode_images
from spf_lite.models.diffusion import add_noise, network_times, predicted_latents, training_target
from spf_lite.models.errors import BackboneError
from spf_lite.training.trainer import DualPathTrainer

from ..models.conftest import without_weights as without_tensors
from .conftest import (
    autoencoder,
    check_every_kind,
    check_two_processes,
    few,
    go_the_whole_way,
    plain_options,
    second_tokenizer,
    t5_encoder,
    t5_tokenizer,
    text_config,
    train_on_pure_pairs,
    write,
)

WIDTH = 36


def transformer(**options: Any) -> SD3Transformer2DModel:
    usual: dict[str, Any] = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 40,
        "pos_embed_max_size": 4,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
    }
    return SD3Transformer2DModel(**{**usual, **options})


@pytest.fixture(scope="module", params=["with T5", "without T5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    base = tmp_path_factory.mktemp("sd3")
    torch.manual_seed(0)
    t5 = t5_tokenizer() if request.param == "with T5" else None
    pipe = StableDiffusion3Pipeline(
        transformer=transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer, 16, 16)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, 16, 24)),
        tokenizer_2=second_tokenizer(tokenizer, base / "tokenizer"),
        text_encoder_3=None if t5 is None else t5_encoder(t5, WIDTH),
        tokenizer_3=t5,
    )
    return write(pipe, base / "model", tokenizer)


def paint_plain(folder: Path, adapter: Path) -> list[Image.Image]:
    without = {} if (folder / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **without)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(adapter)
    images: list[Image.Image] = pipe(**plain_options()).images
    return images


def test_the_whole_way(folder: Path, custom_set: CustomSet, tmp_path: Path) -> None:
    backbone = go_the_whole_way(folder, custom_set, tmp_path, paint_plain)
    assert isinstance(backbone.architecture, StableDiffusion3)


@pytest.mark.usefixtures("fresh_accelerate")
def test_pure_pairs_in_16_bits_with_checkpointing(folder: Path, custom_set: CustomSet) -> None:
    train_on_pure_pairs(folder, custom_set)


def test_two_processes_have_the_losses_of_one(folder: Path, custom_folder: Path, tmp_path: Path) -> None:
    check_two_processes(folder, custom_folder, tmp_path)


def test_every_kind_of_training_is_taken_back_and_exported(folder: Path) -> None:
    check_every_kind(folder)


def test_texts_are_encoded_as_the_pipeline_encodes_them(folder: Path) -> None:
    backbone = load(str(folder))
    texts = ["a person, sunglasses", "a person"]
    hidden, _, pooled, _ = backbone.pipe.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
    found = encode_texts(backbone, texts)
    assert found.shape == (2, *backbone.architecture.text_shape(backbone.pipe))
    assert torch.equal(found[:, : hidden.shape[1]], hidden)
    assert torch.equal(found[:, hidden.shape[1] :].flatten(1)[:, :40], pooled)


def test_maps_come_from_the_columns_of_the_text(folder: Path) -> None:
    backbone = load(str(folder))
    network, pair = backbone.network, text_pair(backbone, "a person, red short hair", "sunglasses")
    clip = backbone.pipe.tokenizer.model_max_length
    with_t5 = backbone.pipe.text_encoder_3 is not None
    assert pair.phrases[1].tokens == ((4, 5, 6, clip + 3, clip + 4, clip + 5) if with_t5 else (4, 5, 6))
    assert len(pair.base_ids) == clip + T5_LENGTH == 1 + pair.alignment[-1][1], "columns without a token are aligned"
    inputs = torch.randn(1, 4, 8, 4), torch.tensor([10.0]), encode_texts(backbone, [pair.base_text])
    with torch.no_grad():
        alone = backbone.predict(network, *inputs)
        with record(network, (8, 4), backbone.spec.attention_resolution) as layers:
            recorded = backbone.predict(network, *inputs)
    assert torch.equal(alone, recorded), "the layer's own processor computes its output"
    assert set(layers) == {"transformer_blocks.0.attn", "transformer_blocks.1.attn"}
    for layer in layers.values():
        assert layer.size == (4, 2) and layer.maps.shape == (1, 2, 8, clip + T5_LENGTH)
        assert torch.allclose(layer.maps.sum(dim=-1), torch.ones(1, 2, 8))
        assert layer.inputs.shape == layer.queries.shape == layer.outputs.shape == (1, 8, 16)


def test_the_flow_is_that_of_the_scheduler(folder: Path) -> None:
    scheduler = load(str(folder)).pipe.scheduler
    timesteps = torch.tensor([0, 499, 999])
    times = scheduler.timesteps.flip(0)[timesteps]
    assert torch.allclose(network_times(scheduler, timesteps), times)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = add_noise(scheduler, latents, noise, timesteps)
    assert torch.allclose(noisy, scheduler.scale_noise(latents, times, noise), atol=1e-6)
    truth = training_target(scheduler, latents, noise, timesteps)
    assert torch.equal(truth, noise - latents)
    assert torch.allclose(predicted_latents(scheduler, truth, noisy, timesteps), latents, atol=1e-5)
    scheduler.set_timesteps(3)
    assert torch.allclose(network_times(scheduler, timesteps), times), "sampling changes the scheduler's own table"


def test_latents_are_shifted_as_the_pipeline_shifts_them(folder: Path) -> None:
    pipe = load(str(folder)).pipe
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = encode_images(pipe, picture)
    mean = pipe.vae.encode(picture * 2 - 1).latent_dist.mean
    assert torch.allclose(latents, (mean - 0.06) * 1.5)
    assert torch.allclose(decode_latents(pipe, latents), pipe.vae.decode(mean).sample / 2 + 0.5, atol=1e-5)


def test_what_reads_more_than_the_text_cannot_start_along_it(folder: Path, custom_set: CustomSet) -> None:
    config = TrainConfig(stage1_steps=0, stage2_steps=1, contrast=1.0)
    backbone = load(str(folder))
    with pytest.raises(BackboneError, match="no keys that read the text alone: set contrast=0"):
        DualPathTrainer(backbone, few(custom_set), config)
    assert not hasattr(backbone.network, "peft_config"), "nothing was put on it"


INDEX, NETWORK, SCHEDULER = "model_index.json", "transformer/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {INDEX: {"_class_name": "StableDiffusion3InpaintPipeline"}},
            "the pipeline is StableDiffusion3InpaintPipeline",
        ),
        ({NETWORK: {"in_channels": 9}}, r"in_channels is 9 \(an inpainting"),
        ({SCHEDULER: {"use_dynamic_shifting": True}}, "has use_dynamic_shifting, supported: a fixed shift"),
        ({INDEX: {"scheduler": ["diffusers", "DDIMScheduler"]}}, "DDIMScheduler is no rectified flow"),
        ({INDEX: {"text_encoder": ["transformers", "CLIPTextModel"]}}, "text_encoder is CLIPTextModel, supported is"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    changes: dict[str, dict[str, Any]], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=message):
        load(str(without_tensors(folder, tmp_path / "model", changes)))
