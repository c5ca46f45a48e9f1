"""Models of one file, in the layout of the original code: the same predictions as from their folder, or a refusal."""

import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from spf_lite.data.texts import encode_texts
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import encode_images, to_tensor
from spf_lite.models.errors import BackboneError
from spf_lite.models.running.sampling import sample

from .conftest import second_tokenizer, t5_encoder, t5_tokenizer, text_config, write
from .original_layout import State, stable_diffusion, stable_diffusion_2, stable_diffusion_3, stable_diffusion_xl

#: Widths of the two CLIP text encoders differ: diffusers tells them apart by that.
FIRST, SECOND, POOLED, T5 = 16, 24, 12, 48


def autoencoder(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        sample_size=64,
        **options,
    )


def unet(width: int, **options: Any) -> UNet2DConditionModel:
    usual: dict[str, Any] = {
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "cross_attention_dim": width,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**usual, **options})


def sd_pipeline(tokenizer: CLIPTokenizer, base: Path) -> DiffusionPipeline:
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokenizer, FIRST, FIRST)),
        tokenizer=tokenizer,
        unet=unet(FIRST),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd2_pipeline(tokenizer: CLIPTokenizer, base: Path) -> DiffusionPipeline:
    """The text encoder is OpenCLIP's, and the UNet has heads of one size and linear layers around its attention."""
    text = text_config(tokenizer, SECOND, SECOND)
    text.hidden_act = "gelu"
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text),
        tokenizer=second_tokenizer(tokenizer, base / "tokenizer"),
        unet=unet(SECOND, use_linear_projection=True, attention_head_dim=(1, 2, 2)),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(tokenizer: CLIPTokenizer, base: Path) -> DiffusionPipeline:
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokenizer, FIRST, FIRST)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, SECOND, POOLED)),
        tokenizer=tokenizer,
        tokenizer_2=second_tokenizer(tokenizer, base / "tokenizer"),
        unet=unet(FIRST + SECOND, use_linear_projection=True, projection_class_embeddings_input_dim=36, **added),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
    )


def sd3_pipeline(tokenizer: CLIPTokenizer, base: Path, with_t5: bool) -> DiffusionPipeline:
    t5 = t5_tokenizer() if with_t5 else None
    first = CLIPTextModelWithProjection(text_config(tokenizer, FIRST, FIRST))
    first.text_projection.weight.data = torch.eye(FIRST)  # the file has none
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=T5,
            caption_projection_dim=16,
            pooled_projection_dim=FIRST + POOLED,
            pos_embed_max_size=4,
            qk_norm="rms_norm",
            dual_attention_layers=(0,),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, SECOND, POOLED)),
        tokenizer_2=second_tokenizer(tokenizer, base / "tokenizer"),
        text_encoder_3=None if t5 is None else t5_encoder(t5, T5),
        tokenizer_3=t5,
    )


Made = tuple[Callable[[CLIPTokenizer, Path], DiffusionPipeline], Callable[[DiffusionPipeline], State]]
CLASSES: dict[str, Made] = {
    "Stable Diffusion": (sd_pipeline, stable_diffusion),
    "Stable Diffusion 2": (sd2_pipeline, stable_diffusion_2),
    "Stable Diffusion XL": (sdxl_pipeline, stable_diffusion_xl),
    "Stable Diffusion 3": (partial(sd3_pipeline, with_t5=True), stable_diffusion_3),
    "Stable Diffusion 3 without T5": (partial(sd3_pipeline, with_t5=False), stable_diffusion_3),
}


def written(name: str, tokenizer: CLIPTokenizer, base: Path) -> tuple[Path, Path]:
    """A model's folder, and its weights in one file."""
    torch.manual_seed(0)
    make, named = CLASSES[name]
    pipe = make(tokenizer, base)
    file = base / "model.safetensors"
    save_file({key: value.contiguous() for key, value in named(pipe).items()}, file)
    return write(pipe, base / "folder", tokenizer), file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> tuple[Path, Path]:
    return written("Stable Diffusion", tokenizer, tmp_path_factory.mktemp("single"))


def without_weights(folder: Path, copy: Path) -> Path:
    """A copy of a model's folder that holds the weights of CLIP alone."""
    for part in folder.iterdir():
        if part.is_file():
            copy.mkdir(exist_ok=True)
            shutil.copy(part, copy)
        else:
            ignored = None if part.name == "clip" else shutil.ignore_patterns("*.safetensors")
            shutil.copytree(part, copy / part.name, ignore=ignored)
    return copy


def seen(backbone: Backbone) -> dict[str, torch.Tensor]:
    """What every part of a model computes."""
    text = encode_texts(backbone, ["a person, red short hair"])
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted = backbone.predict(backbone.network, noisy, torch.tensor([300]), text)
        decoded = backbone.pipe.vae.decode(noisy).sample
    return {"text": text, "prediction": predicted, "latents": encode_images(backbone.pipe, picture), "image": decoded}


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_computes_what_its_folder_does(name: str, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder, file = written(name, tokenizer, tmp_path)
    configs = without_weights(folder, tmp_path / "configs")
    backbone, whole = load(str(file), config=str(configs)), load(str(folder))
    for part, module in whole.architecture.modules(whole.pipe).items():
        other = backbone.architecture.modules(backbone.pipe)[part].state_dict()
        assert all(torch.equal(other[key], value) for key, value in module.state_dict().items()), part
    expected, found = seen(whole), seen(backbone)
    for part, value in expected.items():  # weights lie elsewhere in memory, and kernels may differ in the last bits
        assert torch.allclose(found[part], value, rtol=1e-4, atol=1e-5), part
    assert type(backbone.pipe.scheduler) is type(whole.pipe.scheduler)
    assert backbone.spec.source == str(file) and backbone.spec.clip == str(configs / "clip")
    (image,) = sample(backbone, ["a person"], seeds=[0], steps=2)
    assert image.size == (64, 64)


def test_what_a_file_predicts_stands_in_its_configuration(
    tokenizer: CLIPTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = written("Stable Diffusion 2", tokenizer, tmp_path)
    whole, backbone = load(str(folder)), load(str(file), config=str(without_weights(folder, tmp_path / "configs")))
    assert backbone.pipe.scheduler.config == whole.pipe.scheduler.config
    assert backbone.pipe.scheduler.config.prediction_type == "v_prediction"
    texts = ["a person, red short hair"] * 2
    expected, found = (to_tensor(sample(one, texts, seeds=[0, 1], steps=3)) for one in (whole, backbone))
    assert torch.allclose(found, expected, atol=1.1 / 255), "but for the rounding of a pixel"

    noise = DDIMScheduler.from_config(whole.pipe.scheduler.config, prediction_type="epsilon")
    noise.save_pretrained(tmp_path / "configs" / "scheduler")
    other = load(str(file), config=str(tmp_path / "configs"))
    assert other.pipe.scheduler.config.prediction_type == "epsilon", "the file does not say which it is"
    wrong = to_tensor(sample(other, texts, seeds=[0, 1], steps=3))
    assert not torch.allclose(wrong, expected, atol=0.02)

    def offline(*_: object, **__: object) -> None:
        raise OSError("there is no connection")

    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", offline)
    name = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.zeros(1, 1024)}, tmp_path / "wide.safetensors")
    with pytest.raises(BackboneError, match="takes it for a file of stabilityai/stable-diffusion-2-1"):
        load(str(tmp_path / "wide.safetensors"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_of_tensors_is_read(wrapped: bool, model: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = model
    tensors = load_file(file)
    torch.save({"state_dict": tensors, "global_step": 7} if wrapped else tensors, tmp_path / "model.ckpt")
    backbone = load(str(tmp_path / "model.ckpt"), config=str(folder), dtype=torch.bfloat16)
    assert {p.dtype for p in backbone.network.parameters()} == {torch.bfloat16}
    expected = load(str(folder), dtype=torch.bfloat16).network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.network.state_dict().items())


class Runs:
    """What a pickle of it would do when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("foreign code",))


def test_a_pickle_that_could_run_code_is_refused(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": load_file(model[1]), "callbacks": Runs()}, tmp_path / "model.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"callbacks": Runs()}, protocol=2))
    for name in ("model.ckpt", "plain.ckpt"):
        with pytest.raises(BackboneError, match=f"{name} holds more than tensors.*take the .safetensors file"):
            load(str(tmp_path / name), config=str(model[0]))
    assert not capsys.readouterr().out


def test_files_that_are_no_whole_model_are_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = model
    tensors = load_file(file)
    weight = "model.diffusion_model.middle_block.1.proj_in.weight"
    wrong: dict[str, tuple[State, str]] = {
        "empty": ({}, "is empty"),
        "lora": ({"lora_unet_x.lora_down.weight": torch.ones(1)}, "is a LoRA .*--adapter"),
        "a part": ({k: v for k, v in tensors.items() if k != weight}, "lacks weights of a part"),
        "text": ({k: v for k, v in tensors.items() if "fc1.bias" not in k}, "lacks 2 weights of the text_encoder"),
        "no autoencoder": (
            {k: v for k, v in tensors.items() if not k.startswith("first")},
            "Failed to load Autoencoder",
        ),
        "shape": ({**tensors, weight: torch.ones(3, 3)}, "cannot be loaded as a Stable Diffusion pipeline as .*shape"),
    }
    for name, (state, message) in wrong.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        with pytest.raises(BackboneError, match=message):
            load(str(tmp_path / f"{name}.safetensors"), config=str(folder))
    with pytest.raises(BackboneError, match="nowhere.safetensors: there is no such file"):
        load(str(tmp_path / "nowhere.safetensors"), config=str(folder))
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:2000])
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 no archive")
    for name in ("torn.safetensors", "torn.ckpt"):
        with pytest.raises(BackboneError, match=f"{name} (cannot be read|holds more)"):
            load(str(tmp_path / name), config=str(folder))


def test_a_file_of_another_class_than_its_configuration_is_refused(
    model: tuple[Path, Path], tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    folder, _ = written("Stable Diffusion XL", tokenizer, tmp_path)
    with pytest.raises(BackboneError, match="cannot be loaded as a Stable Diffusion XL pipeline as"):
        load(str(model[1]), config=str(folder))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(BackboneError, match=r"\(FluxPipeline\) is not supported"):
        load(str(model[1]), config=str(tmp_path))


def test_without_a_network_the_error_names_the_option(
    model: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("there is no connection")

    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", offline)
    with pytest.raises(BackboneError, match=r"takes it for a file of stable-diffusion-v1-5/.*cannot be read.*--config"):
        load(str(model[1]))
    with pytest.raises(BackboneError, match=r"its configuration is that of some/where.*cannot be read.*--config"):
        load(str(model[1]), config="some/where")
    with pytest.raises(BackboneError, match="its configuration is that of .*nothing-here"):
        load(str(model[1]), config=str(tmp_path / "nothing-here"))


def test_a_class_that_diffusers_cannot_convert_is_refused(
    model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spf_lite.models.backbones.pixart import PixArtSigma

    monkeypatch.setattr("spf_lite.models.backbone.check_source", lambda _: PixArtSigma())
    with pytest.raises(BackboneError, match="diffusers reads no single files of PixArt-Sigma"):
        load(str(model[1]), config=str(model[0]))
