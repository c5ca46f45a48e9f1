"""One LoRA with a scale, in the naming of diffusers, kohya and peft, on every class of networks: one change."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ModelMixin
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.backbones.registry import architecture_of_network
from spf_lite.models.errors import BackboneError

from ...backbones.test_pixart import transformer as pixart
from ...backbones.test_sd3 import transformer as sd3
from ...backbones.test_sdxl import unet as sdxl
from ..loading.test_compatibility import small_unet

RANK, ALPHA = 3, 2.0
NETWORKS: dict[str, Callable[[], ModelMixin]] = {"sd": small_unet, "sdxl": sdxl, "pixart": pixart, "sd3": sd3}

State = dict[str, torch.Tensor]


def trained(network: ModelMixin, folder: Path) -> State:
    """Random factors on the layers that the class trains, in peft's naming; peft itself has written them, too."""
    ends = list(architecture_of_network(network).trained_layers("cross-attention"))
    torch.manual_seed(0)
    options = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ends, init_lora_weights=False)
    model = get_peft_model(network, options)
    model.save_pretrained(folder)
    found = {}
    for name, layer in network.named_modules():
        if hasattr(layer, "lora_A"):
            found[f"{name}.lora_A.weight"] = layer.lora_A["default"].weight.detach()
            found[f"{name}.lora_B.weight"] = layer.lora_B["default"].weight.detach()
    return found


def as_diffusers(state: State, part: str) -> State:
    """The scale multiplied in."""
    return {f"{part}.{key}": value * (ALPHA / RANK if "lora_B" in key else 1.0) for key, value in state.items()}


def as_kohya(state: State, prefix: str) -> State:
    """The scale as each layer's alpha."""
    named: State = {}
    for key, value in state.items():
        layer, end = key.removesuffix(".weight").rsplit(".", 1)
        module = prefix + layer.replace(".", "_")
        named[f"{module}.{'lora_down' if end == 'lora_A' else 'lora_up'}.weight"] = value
        named[f"{module}.alpha"] = torch.tensor(ALPHA)
    return named


@pytest.mark.parametrize("name", NETWORKS)
def test_every_naming_gives_the_same_change(name: str, tmp_path: Path) -> None:
    state, fresh = trained(NETWORKS[name](), tmp_path), NETWORKS[name]()
    part = architecture_of_network(fresh).part
    files = {"peft": tmp_path}
    namings = {"diffusers": as_diffusers(state, part), "kohya": as_kohya(state, "lora_unet_")}
    if part == "transformer":
        namings["kohya, transformer"] = as_kohya(state, "lora_transformer_")
    for naming, named in namings.items():
        files[naming] = tmp_path / f"{naming}.safetensors"
        save_file({key: value.clone() for key, value in named.items()}, files[naming])
    layers = {key.removesuffix(".lora_A.weight") for key in state if "lora_A" in key}
    assert layers
    for naming, path in files.items():
        found = read_lora(path, fresh)
        assert set(found) == layers, naming
        for layer, pair in found.items():
            expected = state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"] * (ALPHA / RANK)
            assert torch.allclose(pair.up @ pair.down, expected, atol=1e-6), (naming, layer)


@pytest.mark.parametrize("name", ["pixart", "sd3"])
def test_what_kohya_names_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    """The original code of Stable Diffusion 3 has queries, keys and values in one matrix."""
    network = NETWORKS[name]()
    state = as_kohya(
        {key: torch.ones(3, 3) for key in ("joint_blocks.0.x_block.attn.qkv.lora_A.weight",)}, "lora_unet_"
    )
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match="2 of its keys have no layer in the network"):
        read_lora(tmp_path / "a.safetensors", network)
