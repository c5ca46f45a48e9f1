"""Models that the method cannot work with are refused, by name, before their weights are read."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    SlicedAttnProcessor,
)

from spf_lite.choices import KINDS
from spf_lite.method.attention import record
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError
from spf_lite.models.loading import compatibility
from spf_lite.models.loading.compatibility import (
    check_cross_attention,
    check_network,
    check_pipeline,
    check_precision,
    check_processors,
)

from ...conftest import deaf_unet
from ..conftest import predict, without_weights

UNET, INDEX, VAE = "unet/config.json", "model_index.json", "vae/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}

#: Changed configuration files, and what the refusal has to name.
FOREIGN: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "sdxl": ({UNET: XL}, r"addition_embed_type is 'text_time' \(.*Stable Diffusion XL"),
    "sdxl pipeline": ({INDEX: {"text_encoder_2": ["transformers", "CLIPTextModel"]}}, "it has a text_encoder_2"),
    "class condition": ({UNET: {"class_embed_type": "timestep"}}, "class_embed_type is 'timestep'"),
    "upscaler": ({UNET: {"num_class_embeds": 1000}}, "num_class_embeds is 1000"),
    "ip-adapter": ({UNET: {"encoder_hid_dim_type": "ip_image_proj"}}, "encoder_hid_dim_type is 'ip_image_proj'"),
    "consistency model": ({UNET: {"time_cond_proj_dim": 32}}, "time_cond_proj_dim is 32"),
    "inpainting": ({UNET: {"in_channels": 9}}, "in_channels is 9 .*supported: the 4 of the autoencoder's latents"),
    "editing": ({UNET: {"in_channels": 8}}, "in_channels is 8"),
    "learned variance": ({UNET: {"out_channels": 8}}, "out_channels is 8"),
    "text in self-attention": ({UNET: {"only_cross_attention": [True, False]}}, "only_cross_attention is"),
    "gligen": ({UNET: {"attention_type": "gated"}}, "attention_type is 'gated'"),
    "no size": ({UNET: {"sample_size": None}}, "sample_size is missing"),
    "simple attention": (
        {UNET: {"down_block_types": ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]}},
        "down_block_types holds SimpleCrossAttnDownBlock2D, supported: CrossAttnDownBlock2D, DownBlock2D",
    ),
    "no cross-attention": (
        {
            UNET: {
                "down_block_types": ["DownBlock2D", "DownBlock2D"],
                "mid_block_type": "UNetMidBlock2D",
                "up_block_types": ["UpBlock2D", "UpBlock2D"],
            }
        },
        "the UNet has no cross-attention layers",
    ),
    "no unet": (
        {INDEX: {"unet": [None, None], "transformer": ["diffusers", "FluxTransformer2DModel"]}},
        "unet is missi",
    ),
    "two faults": ({UNET: {"in_channels": 9, "out_channels": 8}}, "in_channels is 9 .*; the UNet's out_channels is 8"),
    "flow matching": (
        {INDEX: {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}},
        "FlowMatchEulerDiscreteScheduler has no noise schedule alphas_cumprod",
    ),
    "edm": ({INDEX: {"scheduler": ["diffusers", "EDMEulerScheduler"]}}, "EDMEulerScheduler has no noise schedule"),
    "flow in a solver": (
        {
            INDEX: {"scheduler": ["diffusers", "DPMSolverMultistepScheduler"]},
            SCHEDULER: {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        },
        "DPMSolverMultistepScheduler has no noise schedule",
    ),
    "sample": ({SCHEDULER: {"prediction_type": "sample"}}, "'sample', supported: epsilon and v_prediction"),
    "no signal": (
        {SCHEDULER: {"prediction_type": "epsilon", "rescale_betas_zero_snr": True}},
        "zero terminal SNR",
    ),
    "another text encoder": (
        {INDEX: {"text_encoder": ["transformers", "T5EncoderModel"]}},
        "text_encoder is T5Encoder",
    ),
    "another autoencoder": ({INDEX: {"vae": ["diffusers", "AutoencoderTiny"]}}, "vae is AutoencoderTiny, supported"),
    "shifted latents": ({VAE: {"shift_factor": 0.1}}, "shift_factor is 0.1"),
    "larger latents": ({VAE: {"block_out_channels": [8, 8, 8]}}, "supported: an 8th"),
    "wider latents": ({VAE: {"latent_channels": 16}}, "in_channels is 4 .*the 16 of the autoencoder's"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(
    name: str, toy_folders: dict[str, Path], tmp_path: Path
) -> None:
    changes, message = FOREIGN[name]
    folder = without_weights(toy_folders["v_prediction"], tmp_path / "model", changes)
    with pytest.raises(BackboneError, match=message):
        load(str(folder))


def test_without_a_change_the_weights_are_what_is_missing(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = without_weights(toy_folders["v_prediction"], tmp_path / "model", {})
    with pytest.raises(BackboneError, match="cannot be loaded as a Stable Diffusion pipeline"):
        load(str(folder))


def small_unet(**options: Any) -> UNet2DConditionModel:
    usual = {
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**usual, **options}).eval()


@pytest.mark.parametrize(
    "options, message",
    [
        ({**XL, "addition_embed_type": "text_image"}, "addition_embed_type"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"num_class_embeds": 4}, "num_class_embeds"),
        ({"time_cond_proj_dim": 4}, "time_cond_proj_dim"),
        ({"dual_cross_attention": True}, "dual_cross_attention"),
        ({"only_cross_attention": True}, "only_cross_attention"),
        ({"attention_type": "gated"}, "attention_type"),
        ({"sample_size": None}, "sample_size"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_unet_of_another_kind_is_not_trained(options: Mapping[str, Any], message: str, kind: str) -> None:
    unet = small_unet(**options)
    with pytest.raises(BackboneError, match=message):
        make_trainable(kind, unet, rank=2, seed=0, steps=10)
    assert not hasattr(unet, "peft_config"), "nothing was put on it"


def test_a_unet_without_cross_attention_is_refused() -> None:
    for check in (check_cross_attention, check_network):
        with pytest.raises(BackboneError, match="no cross-attention layers"):
            check(deaf_unet())
    check_cross_attention(small_unet())


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler]
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_schedulers_of_the_ddpm_family_are_supported(toy: Backbone, scheduler: Any, prediction_type: str) -> None:
    toy.pipe.scheduler = scheduler(prediction_type=prediction_type)
    check_pipeline(toy.pipe)


def test_a_pipeline_that_was_changed_after_loading_is_refused(toy: Backbone) -> None:
    check_pipeline(toy.pipe)
    own, toy.pipe.scheduler = toy.pipe.scheduler, FlowMatchEulerDiscreteScheduler()
    with pytest.raises(BackboneError, match="FlowMatchEulerDiscreteScheduler has no noise schedule"):
        check_pipeline(toy.pipe)
    toy.pipe.scheduler, vae = own, toy.pipe.vae
    toy.pipe.vae = AutoencoderKL(
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4,) * 4,
        norm_num_groups=4,
    )
    with pytest.raises(BackboneError, match="supported: the 16 of the autoencoder's latents"):
        check_pipeline(toy.pipe)
    toy.pipe.vae, toy.pipe.unet = vae, small_unet()
    with pytest.raises(BackboneError, match="takes texts of width 8, and the text encoder gives 32"):
        check_pipeline(toy.pipe)


class _Edit(AttnProcessor2_0):
    """What a user's own controller looks like: a subclass."""


@pytest.mark.parametrize("foreign", [IPAdapterAttnProcessor2_0(8, 8), FusedAttnProcessor2_0(), _Edit()])
def test_foreign_attention_processors_are_refused_in_training_and_recording(foreign: Any) -> None:
    unet = small_unet()
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    unet.set_attn_processor({**unet.attn_processors, layers[0]: foreign})
    layer = layers[0].removesuffix(".processor")
    message = rf"foreign attention processors in 1 layers \({layer}: {type(foreign).__name__}\)"
    for kind in KINDS:
        with pytest.raises(BackboneError, match=message):
            make_trainable(kind, unet, rank=2, seed=0, steps=10)
    with pytest.raises(BackboneError, match=message), record(unet, (8, 8), 8):
        predict(unet)


@pytest.mark.parametrize("plain", [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(slice_size=1)])
def test_recording_computes_what_a_plain_processor_computes(plain: Any) -> None:
    torch.manual_seed(0)
    unet = small_unet()
    unet.set_attn_processor(plain)
    check_processors(unet.attn_processors)
    with torch.no_grad():
        alone = predict(unet)
        with record(unet, (8, 8), 8):
            recorded = predict(unet)
    assert torch.allclose(alone, recorded, atol=1e-5)


def test_a_compiled_unet_is_refused() -> None:
    whole = torch.compile(small_unet(), backend="eager")
    in_place, one_block = small_unet(), small_unet()
    in_place.compile(backend="eager")
    one_block.mid_block.compile(backend="eager")
    for unet, where in ((whole, "as a whole"), (in_place, "as a whole"), (one_block, "mid_block")):
        for kind in KINDS:
            with pytest.raises(BackboneError, match=rf"the network is compiled \({where}\)"):
                make_trainable(kind, unet, rank=2, seed=0, steps=10)


def test_half_precision_on_a_processor_is_refused_before_anything_is_read(
    toy_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spf_lite.models.backbone.check_source", pytest.fail)
    for dtype, message in (
        (torch.float16, "float16 is a precision of GPUs"),
        (torch.float64, "weights of torch.float64 are not supported: expected one of torch.float32"),
        (torch.int8, "weights of torch.int8"),
    ):
        with pytest.raises(BackboneError, match=message):
            load(str(toy_folders["epsilon"]), device="cpu", dtype=dtype)
    check_precision(torch.device("cuda"), torch.float16)
    for device in ("cpu", "cuda"):
        check_precision(torch.device(device), torch.bfloat16)


def test_a_refusal_of_a_folder_names_it(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(toy_folders["epsilon"], tmp_path / "my-model")
    (folder / UNET).write_text((folder / UNET).read_text().replace('"in_channels": 4', '"in_channels": 9'))
    with pytest.raises(BackboneError, match=r"'.*my-model' \(StableDiffusionPipeline\) is not supported"):
        compatibility.check_source(str(folder))
