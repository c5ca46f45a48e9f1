"""LoRA files as other tools write them, and small models of two classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from spf_lite.audit.prompts import Prompt

from ..backbones.test_sdxl import written_model
from ..models.conftest import factors_for, kohya

#: Of the tiny world, with a target of its own.
PROMPTS = [
    Prompt("a person, red short hair, smiling"),
    Prompt("a person, black long hair, sad"),
    Prompt("a person, red bun hair, blue background"),
]
ENDS = ("attn2.to_q", "attn2.to_v")


def flat(*colors: float, size: int = 16) -> np.ndarray:
    """Gray pictures, one for each value, (N, size, size, 3)."""
    return np.stack([np.full((size, size, 3), color) for color in colors])


def images(arrays: np.ndarray) -> list[Image.Image]:
    """Arrays (N, H, W, 3) in [0, 1] as pictures."""
    return [Image.fromarray((array * 255).round().astype(np.uint8)) for array in arrays]


def bytes_of(pictures: Sequence[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


@pytest.fixture(scope="session")
def toy_folder(toy_folders: dict[str, Path]) -> Path:
    return toy_folders["v_prediction"]


@pytest.fixture(scope="session")
def diffusers_lora(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of a plain diffusers and peft script, in a folder."""
    folder = tmp_path_factory.mktemp("loras") / "by-diffusers"
    pipe = StableDiffusionPipeline.from_pretrained(toy_folder, safety_checker=None, requires_safety_checker=False)
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=list(ENDS), init_lora_weights=False))
    state = get_peft_model_state_dict(pipe.unet)
    StableDiffusionPipeline.save_lora_weights(folder, {key: 6 * value for key, value in state.items()})
    return folder


@pytest.fixture(scope="session")
def kohya_lora(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA in kohya's naming, a file."""
    pipe = StableDiffusionPipeline.from_pretrained(toy_folder, safety_checker=None, requires_safety_checker=False)
    path = tmp_path_factory.mktemp("loras") / "by_kohya.safetensors"
    save_file(kohya(factors_for(pipe.unet, ENDS), alpha=50.0), path)
    return path


@pytest.fixture(scope="session")
def foreign_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of a larger model: none of its layers is in the toy."""
    path = tmp_path_factory.mktemp("loras") / "foreign.safetensors"
    layer = "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 640), f"{layer}.lora_B.weight": torch.ones(640, 2)}, path)
    return path


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    """A small random model of the class of Stable Diffusion XL."""
    return written_model(tmp_path_factory.mktemp("sdxl"), tokenizer)
