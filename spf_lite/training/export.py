"""An adapter on disk: an ordinary diffusers LoRA, its configuration, and a model card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from torch import Tensor

from spf_lite.config import WEIGHTS, TrainConfig
from spf_lite.data.custom_set import CustomSet

CARD, CONFIG, MEASURES = "README.md", "config.json", "measures.json"


def write_adapter(
    folder: str | Path, layers: dict[str, Tensor], config: TrainConfig, custom_set: CustomSet, base_model: str
) -> Path:
    """Write ``pytorch_lora_weights.safetensors``, ``config.json`` and ``README.md``.

    Args:
        folder: made if it is not there.
        layers: from :meth:`spf_lite.models.trainable.Trainable.lora_layers`.
        config: of the run.
        custom_set: what was learned.
        base_model: folder or hub id of the model that it fits.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config.to_json())
    # A folder on somebody's disk means nothing to others: its name has to do.
    name = Path(base_model).name if Path(base_model).exists() else base_model
    (folder / CARD).write_text(_card(config, custom_set, name))
    # Last: where the weights are, the adapter is whole.
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=convert_state_dict_to_diffusers(layers))
    return folder


def add_measures(folder: str | Path, measures: Mapping[str, str]) -> None:
    """Write measures into the card of an exported adapter (in place of earlier ones) and into ``measures.json``.

    Args:
        folder: with the card.
        measures: name to value with its interval, as it shall be read.

    Raises:
        FileNotFoundError: if there is no card.
    """
    path = Path(folder) / CARD
    card = path.read_text().split("\n## Measures\n")[0].rstrip("\n")
    rows = "\n".join(f"| {name} | {value} |" for name, value in measures.items())
    path.write_text(f"{card}\n\n## Measures\n\n| measure | value [95 % interval] |\n|---|---|\n{rows}\n")
    (Path(folder) / MEASURES).write_text(json.dumps(dict(measures), indent=2) + "\n")


def _card(config: TrainConfig, custom_set: CustomSet, base_model: str) -> str:
    weights = ", ".join(f"{name} {config.weight(name):g}" for name in WEIGHTS if config.weight(name))
    stage2 = f"{config.stage2_steps} dual-path steps ({weights}; map: {config.map_source})"
    return f"""---
library_name: diffusers
tags: [stable-diffusion, text-to-image, lora, spf-portrait]
---

# LoRA adapter: {custom_set[0].target_text}

Teaches "{custom_set[0].target_text}" to `{base_model}`, trained with SPF-Lite, an open implementation of SPF-Portrait
(arXiv 2504.00396). `pipe.load_lora_weights(folder)` of diffusers loads it.

## Training

- Data: {len(custom_set)} portraits, SHA-256 of texts and pictures `{custom_set.digest}`.
- {config.stage1_steps} steps of ordinary fine-tuning, then {stage2 if config.stage2_steps else "nothing else"}.
- Batches of {config.batch_size}, AdamW, learning rate {config.learning_rate:g} ({config.schedule}), seed {config.seed},
  cross-attention only ({config.trainable}, rank {config.rank}). `{CONFIG}` has every option.

## Limits

What the portraits of the set have in common besides the target may have been learned with it. Portraits of real people
need their consent.
"""
