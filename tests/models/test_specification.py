from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from spf_lite.method.attention import record
from spf_lite.models.backbone import load
from spf_lite.models.specification import GUIDANCE_SCALE, attention_resolution, specification_of, tiny_folder

from .conftest import predict


def test_a_specification_is_found_by_name(toy_folders: dict[str, Path]) -> None:
    assert specification_of("sd15").source.endswith("stable-diffusion-v1-5")
    assert specification_of(str(toy_folders["epsilon"])).clip == str(toy_folders["epsilon"] / "clip")


def test_guidance_is_what_suits_the_model(toy_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(toy_folders["epsilon"])
    assert specification_of("sd15").guidance_scale == specification_of(folder).guidance_scale == 7.5
    monkeypatch.setenv("SPF_LITE_TINY", folder)
    assert tiny_folder() == toy_folders["epsilon"]
    assert specification_of("tiny").source == folder
    assert specification_of("tiny").guidance_scale == specification_of(folder).guidance_scale == GUIDANCE_SCALE


def test_the_shipped_transformer_has_a_name_and_the_guidance_of_the_tiny_model() -> None:
    found = specification_of("tiny-transformer")
    assert found.source.endswith("tiny-transformer") and found.clip.endswith("clip") and found.preview is not None
    assert found.guidance_scale == specification_of(found.source).guidance_scale == GUIDANCE_SCALE


def test_what_is_stored_beside_a_local_model_is_used(tmp_path: Path) -> None:
    alone = specification_of(str(tmp_path))
    assert alone.clip == specification_of("sd15").clip and alone.preview is None
    for name in ("clip", "preview"):
        (tmp_path / name).mkdir()
    beside = specification_of(str(tmp_path))
    assert (beside.clip, beside.preview) == (str(tmp_path / "clip"), str(tmp_path / "preview"))


def test_a_tilde_is_the_home_folder(toy_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy_folders["epsilon"]
    monkeypatch.setenv("HOME", str(folder.parent))
    found = specification_of(f"~/{folder.name}")
    assert (found.source, found.clip) == (str(folder), str(folder / "clip"))
    assert load(f"~/{folder.name}").spec.source == str(folder)


# Blocks by their letters: C with cross-attention, p without.
@pytest.mark.parametrize(
    "size, down, up, mid, expected",
    [
        (16, "CCp", "pCC", True, 16),  # the tiny model
        (64, "CCCp", "pCCC", True, 16),  # Stable Diffusion 1.5
        (96, "CCCp", "pCCC", True, 24),  # Stable Diffusion 2 at 768 pixels: 96, 48, 24; the middle's 12 is one layer
        (24, "CCp", "pCC", True, 12),
        (24, "Cpp", "ppC", False, 24),
        (96, "CCCp", "pCCC", False, 24),
        (8, "Cp", "pC", False, 8),
        (128, "pCC", "CCp", True, 32),
        (20, "CCC", "CCC", True, 20),  # 20, 10, 5
        (21, "CCC", "CCC", True, 21),  # 21, 11, 6: equally near, the larger
        (20, "ppp", "ppp", True, 5),
        (20, "ppp", "Cpp", False, 5),
        ((16, 24), "CCp", "pCC", True, 12),
        ((16, 8), "CCp", "pCC", True, 16),
        ((40, 24), "CCp", "pCC", False, 20),
    ],
)
def test_the_recorded_resolution_is_one_that_the_unet_has(
    size: Any, down: str, up: str, mid: bool, expected: int
) -> None:
    unet = UNet2DConditionModel(
        sample_size=size,
        down_block_types=tuple("CrossAttnDownBlock2D" if block == "C" else "DownBlock2D" for block in down),
        up_block_types=tuple("CrossAttnUpBlock2D" if block == "C" else "UpBlock2D" for block in up),
        mid_block_type="UNetMidBlock2DCrossAttn" if mid else "UNetMidBlock2D",
        block_out_channels=(4,) * len(down),
        layers_per_block=1,
        cross_attention_dim=4,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    resolution = attention_resolution(unet.config)
    assert resolution == expected
    height, width = (size, size) if isinstance(size, int) else size
    with torch.no_grad(), record(unet, (height, width), resolution) as layers:
        predict(unet)
    assert layers and all(max(layer.size) == resolution for layer in layers.values())


def test_another_resolution_can_be_wished_for(toy_folders: dict[str, Path]) -> None:
    config = {
        "sample_size": 64,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    }
    assert [attention_resolution(config, wanted) for wanted in (16, 32, 50, 1)] == [16, 32, 64, 16]
    assert load(str(toy_folders["epsilon"])).spec.attention_resolution == 8, "what the UNet has"
