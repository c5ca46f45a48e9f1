import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, PNDMScheduler

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import decode_latents
from spf_lite.models.errors import BackboneError
from spf_lite.models.running.sampling import sample
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import deaf_unet
from .conftest import without_grad
from .loading.test_compatibility import small_unet


def test_models_that_cannot_be_used_are_refused(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no diffusers model in .*nowhere"):
        load(str(tmp_path / "nowhere"))
    index = json.loads((toy_folders["epsilon"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BackboneError, match="cannot be loaded as a diffusers pipeline"):
        load(str(tmp_path))


def test_a_unet_without_cross_attention_is_refused(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        add_lora(deaf_unet(), rank=2)
    folder = shutil.copytree(toy_folders["epsilon"], tmp_path / "model")
    deaf_unet().save_pretrained(folder / "unet")
    with pytest.raises(BackboneError, match="no cross-attention layers"):
        load(str(folder))


def test_a_loaded_model_is_frozen_and_of_the_type_that_was_asked_for(toy_folders: dict[str, Path]) -> None:
    for dtype in (None, torch.bfloat16):
        backbone = load(str(toy_folders["epsilon"]), device="cpu", dtype=dtype)
        assert backbone.spec.dtype == (dtype or torch.float32)
        for module in (backbone.pipe.unet, backbone.pipe.vae, backbone.pipe.text_encoder):
            assert not module.training
            assert {p.dtype for p in module.parameters()} == {dtype or torch.float32}
            assert not any(p.requires_grad for p in module.parameters())
        assert backbone.clip.model.dtype == torch.float32, "CLIP measures"


def test_the_reference_is_the_model_without_a_loaded_adapter(toy: Backbone) -> None:
    untouched = without_grad(toy)
    for parameter in add_lora(toy.pipe.unet, rank=2):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(without_grad(toy), untouched)
    with toy.reference() as unet:
        assert unet is toy.pipe.unet and torch.equal(without_grad(toy), untouched)


def test_previews_are_decoded_by_the_small_decoder_that_the_specification_names(toy: Backbone, tmp_path: Path) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    assert toy.preview is None
    assert torch.equal(toy.decode_preview(latents), decode_latents(toy.pipe, latents)), "none named: the pipeline's own"
    small = AutoencoderTiny(encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4)
    small.save_pretrained(tmp_path)
    other = Backbone(toy.pipe, replace(toy.spec, preview=str(tmp_path)))
    images = other.decode_preview(latents)
    assert torch.allclose(images, small.eval().decode(latents).sample / 2 + 0.5, atol=1e-6)
    images.sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [24, 20])
def test_a_model_of_any_size_trains_through_both_stages(
    size: int, toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    folder = shutil.copytree(toy_folders["v_prediction"], tmp_path / "model")
    blocks = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    unet = small_unet(
        sample_size=size,
        down_block_types=(blocks[0], blocks[0], "DownBlock2D"),
        up_block_types=("UpBlock2D", blocks[1], blocks[1]),
        block_out_channels=(8, 8, 8),
        cross_attention_dim=32,
    )
    unet.save_pretrained(folder / "unet")
    backbone = load(str(folder))
    assert backbone.spec.attention_resolution == {24: 12, 20: 20}[size]
    config = TrainConfig(stage1_steps=1, stage2_steps=1, batch_size=2, rank=2, weight_text=1.0, weight_fine=1.0)
    history = DualPathTrainer(backbone, custom_set, config).fit(progress=False).history
    assert [line["stage"] for line in history] == [1, 2] and "text" in history[1]


def test_a_model_like_stable_diffusion_2_loads_trains_and_samples(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    """Velocity prediction, a PNDM scheduler, linear projections, heads of one width and upcast attention."""
    folder = shutil.copytree(toy_folders["v_prediction"], tmp_path / "model")
    small_unet(
        cross_attention_dim=32, attention_head_dim=(2, 4), use_linear_projection=True, upcast_attention=True
    ).save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    scheduler = PNDMScheduler(prediction_type="v_prediction", skip_prk_steps=True, steps_offset=1)
    scheduler.save_pretrained(folder / "scheduler")
    backbone = load(str(folder))
    assert type(backbone.pipe.scheduler) is PNDMScheduler
    config = TrainConfig(stage1_steps=1, stage2_steps=1, batch_size=2, rank=2, weight_text=1.0, weight_enhancement=0.1)
    history = DualPathTrainer(backbone, custom_set, config).fit(progress=False).history
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in history)
    (image,) = sample(backbone, ["a person"], seeds=[0], steps=2)
    assert image.size == (64, 64)
