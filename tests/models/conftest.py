"""What the tests of several modules of ``spf_lite.models`` share."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from spf_lite.models.backbone import Backbone


def predict(unet: UNet2DConditionModel) -> torch.Tensor:
    """One prediction (2, C, h, w) on fixed noise and a fixed text, with gradient."""
    generator = torch.Generator().manual_seed(1)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    noisy = torch.randn(2, unet.config.in_channels, height, width, generator=generator)
    text = torch.randn(2, 6, unet.config.cross_attention_dim, generator=generator)
    prediction: torch.Tensor = unet(noisy, torch.tensor([10, 500]), encoder_hidden_states=text).sample
    return prediction


def without_weights(source: Path, folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> Path:
    """Copy a pipeline's configuration files alone, with changes.

    Args:
        source: a pipeline's folder.
        folder: gets the copy.
        changes: of each file, by its path in the folder; a value of None removes nothing, it is written as null.
    """
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name, values in changes.items():
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **values}))
    return folder


def without_grad(backbone: Backbone) -> torch.Tensor:
    """:func:`predict` of a backbone's UNet, without gradient."""
    with torch.no_grad():
        return predict(backbone.pipe.unet)


def factors_for(
    unet: UNet2DConditionModel, ends: tuple[str, ...], rank: int = 2, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random factors of a LoRA in peft's naming.

    Args:
        unet: that they fit.
        ends: of the layers' names.
        rank: of the first layer; every further one has one more, four at most.
        seed: of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    layers = [(name, module) for name, module in unet.named_modules() if name.endswith(ends)]
    for number, (name, module) in enumerate(layers):
        outputs, *inputs = module.weight.shape
        own = rank + number % 4
        state[f"{name}.lora_A.weight"] = torch.randn(own, *inputs, generator=generator)
        state[f"{name}.lora_B.weight"] = torch.randn(outputs, own, *(1 for _ in inputs[1:]), generator=generator)
    return state


def kohya(state: Mapping[str, torch.Tensor], alpha: float | None) -> dict[str, torch.Tensor]:
    """A state of :func:`factors_for` in kohya's naming; None: alpha is each layer's rank."""
    named = {}
    for key, value in state.items():
        layer, end = key.removesuffix(".weight").rsplit(".", 1)
        module = "lora_unet_" + layer.replace(".", "_")
        named[f"{module}.{'lora_down' if end == 'lora_A' else 'lora_up'}.weight"] = value
        if end == "lora_A":
            named[f"{module}.alpha"] = torch.tensor(float(len(value)) if alpha is None else alpha)
    return named
