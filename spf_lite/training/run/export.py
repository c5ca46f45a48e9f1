"""An adapter on disk: an ordinary diffusers LoRA, its configuration, and a model card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from spf_lite.choices import WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.files import read_text, write_files
from spf_lite.models.adapters.learned import TARGET, LearnedTarget
from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.backbones.files import ADAPTER_FILES, PEFT_CONFIG
from spf_lite.models.backbones.unet import StableDiffusion
from spf_lite.training.loss_meter import check_finite
from spf_lite.training.recipes import recipe_name

CARD, CONFIG, MEASURES = "README.md", "config.json", "measures.json"
#: How many reference texts go with an adapter.
TEXTS = 64


def write_adapter(
    folder: str | Path,
    layers: dict[str, Tensor],
    config: TrainConfig,
    custom_set: CustomSet,
    base_model: str,
    earlier: Sequence[str] = (),
    continued: bool = False,
    architecture: Architecture | None = None,
) -> Path:
    """Write ``pytorch_lora_weights.safetensors``, ``config.json`` and ``README.md``.

    An adapter that is there already stays as it is until all three are whole on the disk.

    Args:
        folder: made if it is not there.
        layers: from :meth:`spf_lite.models.adapters.base.Trainable.lora_layers`.
        config: of the run.
        custom_set: what the adapter was trained on.
        base_model: folder or hub id of the model that it fits.
        earlier: names of the attributes that were learned before.
        continued: whether the adapter holds these as well, or is on top of the adapters that do.
        architecture: the class of the base model; None: Stable Diffusion.

    Raises:
        TrainingDivergedError: if a low-rank factor is not finite.
        OSError: if the folder cannot be written; the message names the file.
    """
    check_finite(layers, f"nothing is exported to {folder}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The folder's name on this computer means nothing to others and may hold a user's name.
    name = Path(base_model).name if Path(base_model).exists() else base_model
    architecture = architecture or StableDiffusion()
    card = _card(config, custom_set, name, _history(earlier, continued), architecture)
    said = {TARGET: learned_target(custom_set).to_json()}
    # Weights last: where they are, the adapter is whole.
    weights = {folder / file: content for file, content in architecture.adapter_files(layers, said).items()}
    write_files({folder / CONFIG: config.to_json(), folder / CARD: card, **weights})
    return folder


def learned_target(custom_set: CustomSet) -> LearnedTarget:
    """The target of a custom set, with every phrase that it replaces in its own texts and in its references.

    Some reference texts go with it. The set's own texts do not: they describe people who gave their portraits.
    """
    phrases = [*(one.replaces for one in custom_set), *(phrase for _, phrase in custom_set.references)]
    texts = [text for text, _ in custom_set.references[:TEXTS]]
    return LearnedTarget.of(custom_set[0].target_text, phrases, custom_set.excludes, texts)


def remove_adapter(folder: str | Path) -> None:
    """Delete what :func:`write_adapter` and :func:`add_measures` wrote, weights first, and nothing else."""
    folder = Path(folder)
    if any((folder / name).is_file() for name in ADAPTER_FILES):
        for name in (*ADAPTER_FILES, PEFT_CONFIG, CARD, CONFIG, MEASURES):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def add_measures(folder: str | Path, measures: Mapping[str, str]) -> None:
    """Write measures into the card of an exported adapter (in place of earlier ones) and into ``measures.json``.

    Args:
        folder: with the card.
        measures: name to value with its interval, as it shall be read.

    Raises:
        FileNotFoundError: if there is no card.
        ValueError: if the card is no UTF-8 text.
        OSError: if the folder cannot be written; the card is as it was.
    """
    path = Path(folder) / CARD
    card = read_text(path).split("\n## Measures\n")[0].rstrip("\n")
    rows = "\n".join(f"| {name} | {value} |" for name, value in measures.items())
    write_files(
        {
            path: f"{card}\n\n## Measures\n\n| measure | value [95 % interval] |\n|---|---|\n{rows}\n",
            Path(folder) / MEASURES: json.dumps(dict(measures), indent=2) + "\n",
        }
    )


def _history(earlier: Sequence[str], continued: bool) -> str:
    """The line of a card that says what was learned before."""
    if not earlier:
        return ""
    if continued:
        return f"- Continues what was learned before, and still holds it: {', '.join(earlier)}.\n"
    return (
        f"- On top of what was learned before: {', '.join(earlier)}. It wants these adapters loaded, too; "
        "`spf-lite combine`\n  makes one file of all.\n"
    )


def _card(config: TrainConfig, custom_set: CustomSet, base_model: str, history: str, architecture: Architecture) -> str:
    weights = ", ".join(f"{name} {config.weight(name):g}" for name in WEIGHTS if config.weight(name))
    stage2 = f"{config.stage2_steps} dual-path steps ({weights}; map: {config.map_source})"
    known = recipe_name(config)
    named = f"- Recipe: `{known}` of `spf_lite.training.recipes`.\n" if known else ""
    adam, rate = "AdamW" if config.optimizer == "adamw" else "AdamW of 8 bits", f"{config.learning_rate:g}"
    texts = " and some of the reference texts" if custom_set.references else ""
    layers = "cross-attention" if config.layers == "cross-attention" else "cross-attention and ResNet convolutions"
    return f"""---
library_name: diffusers
tags: [stable-diffusion, text-to-image, lora, spf-portrait]
---

# LoRA adapter: {custom_set[0].target_text}

Teaches "{custom_set[0].target_text}" to `{base_model}`, trained with SPF-Lite, an open implementation of SPF-Portrait
(arXiv 2504.00396). {architecture.loading_hint()}

## Training

{named}{history}- Data: {len(custom_set)} portraits, SHA-256 of texts and pictures `{custom_set.digest}`.
- {config.stage1_steps} steps of ordinary fine-tuning, then {stage2 if config.stage2_steps else "nothing else"}.
- Batches of {config.batch_size}, {adam}, learning rate {rate} ({config.schedule}), seed {config.seed},
  {layers} only ({config.trainable}, rank {config.rank}). `{CONFIG}` has every option.
- Metadata of the file: the target{texts}, for runs on top of it.

## Limits

The adapter may also have learned spurious attributes: what the portraits of the set have in common besides the target.
Portraits of real people need their consent.
"""
