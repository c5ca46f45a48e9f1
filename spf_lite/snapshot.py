"""All that the rest of a run depends on, out of the trainer and back. The random state is the seed and the step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from spf_lite.batches import reference_items

if TYPE_CHECKING:
    from spf_lite.training import DualPathTrainer


def snapshot(trainer: DualPathTrainer) -> dict[str, Any]:
    """Tensors and plain values only, so that ``torch.load`` reads them without running code."""
    scaler = trainer.accelerator.scaler
    averaged = trainer.config.map_source == "averaged" and trainer.scales
    return {
        "trained": trainer.trained.state(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "scales": trainer.scales,
        "extractor": trainer.extractor.state if trainer.extractor else None,
        "references": [item.latents for item in trainer.references],
        "regions": [item.region for item in (*trainer.custom, *trainer.references)] if averaged else [],
        "step": trainer.step,
        "seconds": trainer.seconds,
    }


def restore(trainer: DualPathTrainer, state: dict[str, Any]) -> None:
    """Bring a trainer that has not begun to where :func:`snapshot` was taken."""
    trainer.trained.restore(state["trained"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scheduler.load_state_dict(state["scheduler"])
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.scales, trainer.step, trainer.seconds = state["scales"], state["step"], state["seconds"]
    if state["extractor"]:
        trainer.freeze_extractor(state["extractor"])
    if state["references"]:
        latents = torch.stack(state["references"])
        trainer.references = reference_items(trainer.backbone, trainer.reference_texts, latents, trainer.custom[0])
    if state["regions"]:
        everyone = zip((*trainer.custom, *trainer.references), state["regions"], strict=True)
        mapped = [replace(item, region=region) for item, region in everyone]
        trainer.custom, trainer.references = mapped[: len(trainer.custom)], mapped[len(trainer.custom) :]
