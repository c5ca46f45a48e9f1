"""Stable Diffusion 1 and 2: what is predicted, zero terminal SNR, and sizes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.backbone import load
from spf_lite.models.backbones.registry import ARCHITECTURES, architecture_of_network
from spf_lite.models.backbones.unet import StableDiffusion
from spf_lite.models.errors import BackboneError

from .conftest import autoencoder, go_the_whole_way, plain_options, text_config, write


def pipeline(tokenizer: CLIPTokenizer, scheduler: DDIMScheduler, side: int = 8) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=side,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokenizer, 16, 16)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def paint_plain(folder: Path, adapter: Path) -> list[Image.Image]:
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(adapter)
    images: list[Image.Image] = pipe(**plain_options()).images
    return images


@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "epsilon"},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ],
    ids=["epsilon", "velocity", "velocity, zero terminal SNR"],
)
def test_the_whole_way(
    options: dict[str, object], tokenizer: CLIPTokenizer, custom_set: CustomSet, tmp_path: Path
) -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, **options)
    folder = write(pipeline(tokenizer, scheduler), tmp_path / "model", tokenizer)
    backbone = go_the_whole_way(folder, custom_set, tmp_path, paint_plain)
    assert isinstance(backbone.architecture, StableDiffusion)


def test_a_network_of_no_supported_class_is_refused() -> None:
    for found in ARCHITECTURES:
        assert not found.claims(torch.nn.Linear(1, 1))
    message = "AutoencoderKL is not supported: expected that of .*Stable Diffusion"
    with pytest.raises(BackboneError, match=message):
        architecture_of_network(AutoencoderKL(norm_num_groups=1, block_out_channels=(1,)))


def test_a_folder_of_another_pipeline_names_it(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "Flux"]}')
    with pytest.raises(
        BackboneError, match=r"\(FluxPipeline\) is not supported: unet is missing.*it has a transformer"
    ):
        load(str(tmp_path))
