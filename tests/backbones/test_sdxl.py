"""Stable Diffusion XL: two text encoders, a pooled embedding, time ids."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.texts import empty_text, encode_texts
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.backbone import load
from spf_lite.models.backbones.sdxl import StableDiffusionXL
from spf_lite.models.errors import BackboneError

from ..models.conftest import factors_for, kohya
from ..models.conftest import without_weights as without_tensors
from .conftest import (
    autoencoder,
    check_every_kind,
    check_two_processes,
    go_the_whole_way,
    plain_options,
    second_tokenizer,
    text_config,
    train_on_pure_pairs,
    write,
)

POOLED, TIME = 24, 4


def unet(**options: Any) -> UNet2DConditionModel:
    usual: dict[str, Any] = {
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 32,
        "attention_head_dim": (2, 2),
        "norm_num_groups": 4,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME,
        "projection_class_embeddings_input_dim": POOLED + 6 * TIME,
    }
    return UNet2DConditionModel(**{**usual, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    return written_model(tmp_path_factory.mktemp("sdxl"), tokenizer)


def written_model(base: Path, tokenizer: CLIPTokenizer) -> Path:
    """The folder of a whole model, in ``base``."""
    torch.manual_seed(0)
    pipe = StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokenizer, 16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, 16, POOLED)),
        tokenizer=tokenizer,
        tokenizer_2=second_tokenizer(tokenizer, base / "tokenizer"),
        unet=unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
    )
    return write(pipe, base / "model", tokenizer)


def paint_plain(folder: Path, adapter: Path) -> list[Image.Image]:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(adapter)
    images: list[Image.Image] = pipe(**plain_options()).images
    return images


def test_the_whole_way(folder: Path, custom_set: CustomSet, tmp_path: Path) -> None:
    backbone = go_the_whole_way(folder, custom_set, tmp_path, paint_plain)
    assert isinstance(backbone.architecture, StableDiffusionXL)


@pytest.mark.usefixtures("fresh_accelerate")
def test_pure_pairs_in_16_bits_with_checkpointing(folder: Path, custom_set: CustomSet) -> None:
    train_on_pure_pairs(folder, custom_set)


def test_two_processes_have_the_losses_of_one(folder: Path, custom_folder: Path, tmp_path: Path) -> None:
    check_two_processes(folder, custom_folder, tmp_path)


def test_every_kind_of_training_is_taken_back_and_exported(folder: Path) -> None:
    check_every_kind(folder)


def test_texts_are_encoded_as_the_pipeline_encodes_them(folder: Path) -> None:
    backbone = load(str(folder))
    pipe, texts = backbone.pipe, ["a person, sunglasses", "a person"]
    hidden, empty, pooled, _ = pipe.encode_prompt(texts, device="cpu", do_classifier_free_guidance=True)
    found = encode_texts(backbone, texts)
    assert found.shape == (2, *backbone.architecture.text_shape(pipe))
    length = pipe.tokenizer.model_max_length
    assert torch.equal(found[:, :length], hidden) and torch.equal(found[:, length, :POOLED], pooled)
    assert torch.equal(empty_text(backbone)[:length], empty[0]), "guidance leads away from zeros"
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert torch.equal(empty_text(backbone), encode_texts(backbone, [""])[0])


def test_a_pass_is_that_of_the_pipeline(folder: Path) -> None:
    backbone = load(str(folder))
    pipe, (text,) = backbone.pipe, encode_texts(backbone, ["a person"])
    noisy = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    seen: list[dict[str, Any]] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, __, options: seen.append(options), with_kwargs=True)
    with torch.no_grad():
        backbone.predict(pipe.unet, noisy, torch.tensor([1]), text[None])
        pipe("a person", height=32, width=64, num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    hook.remove()
    ours, theirs = (one["added_cond_kwargs"] for one in seen)
    assert torch.equal(ours["time_ids"], theirs["time_ids"]) and torch.equal(ours["text_embeds"], theirs["text_embeds"])


@pytest.mark.parametrize("naming", ["diffusers", "kohya"])
def test_files_of_other_tools_are_read(naming: str, folder: Path, tmp_path: Path) -> None:
    network = load(str(folder)).network
    state = factors_for(network, ("attn2.to_k", "attn2.to_out.0"))
    named = kohya(state, alpha=None) if naming == "kohya" else {f"unet.{key}": value for key, value in state.items()}
    save_file(named, tmp_path / "a.safetensors")
    found = read_lora(tmp_path / "a.safetensors", network)
    assert {name.removesuffix(".lora_A.weight") for name in state if "lora_A" in name} == set(found)
    for name, pair in found.items():
        assert torch.equal(pair.down, state[f"{name}.lora_A.weight"])


INDEX, UNET = "model_index.json", "unet/config.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({UNET: {"in_channels": 9}}, r"in_channels is 9 \(an inpainting"),
        ({INDEX: {"_class_name": "StableDiffusionXLInpaintPipeline"}}, "StableDiffusionXLInpaintPipeline"),
        ({INDEX: {"text_encoder": [None, None]}}, "text_encoder is missing"),
        ({UNET: {"addition_embed_type": "text_image"}}, "addition_embed_type is 'text_image'"),
        ({UNET: {"addition_embed_type": None}}, "takes no pooled text and no size"),
        ({UNET: {"projection_class_embeddings_input_dim": 6}}, "leaves no room for a pooled text"),
        ({INDEX: {"scheduler": ["diffusers", "EDMEulerScheduler"]}}, "EDMEulerScheduler has no noise schedule"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    changes: dict[str, dict[str, Any]], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=message):
        load(str(without_tensors(folder, tmp_path / "model", changes)))


def test_parts_that_do_not_fit_each_other_are_refused(folder: Path, tokenizer: CLIPTokenizer) -> None:
    backbone = load(str(folder))
    pipe = backbone.pipe
    pipe.text_encoder_2 = CLIPTextModelWithProjection(text_config(tokenizer, 8, 12))
    pipe.tokenizer_2.model_max_length = 77
    with pytest.raises(BackboneError, match="width 32, and .* give 24; .* width 24, and .* gives 12") as refusal:
        backbone.architecture.check_pipeline(pipe)
    assert "take 32 and 77 tokens" in str(refusal.value)
    with pytest.raises(BackboneError, match="overflows in float16"):
        backbone.architecture.check_dtype(pipe, torch.float16)
