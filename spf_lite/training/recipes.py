"""Named recipes: each a configuration that a reader can hold against its neighbour.

All recipes take the same number of optimiser steps in all, on the same data, from the same seed.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from spf_lite.config import ControlMapOptions, TrainConfig

#: Optimiser steps of every recipe, both stages together.
STEPS = 300
_STAGED = TrainConfig(stage1_steps=STEPS // 2, stage2_steps=STEPS - STEPS // 2)
_NAIVE = TrainConfig(stage1_steps=STEPS, stage2_steps=0)
_PAPER = replace(_STAGED, weight_text=1.0, weight_fine=1.0, weight_enhancement=0.5)
_SPF = replace(
    _STAGED,
    weight_denoise=5.0,
    weight_text=0.5,
    weight_fine=0.5,
    weight_enhancement=1.0,
    weight_output=1.5,
    weight_reconstruction=0.15,
    reference_portraits=64,
    denoise_outside=0.0,
    map_source="averaged",
    # A hard map: whatever a soft one leaves of the witness's pull inside the target's region is enough to take the
    # target away again.
    control=ControlMapOptions(threshold=0.2, softness=0.0),
)

RECIPES: dict[str, TrainConfig] = {
    # Standard fine-tuning of the cross-attention layers: whatever the set has in common is learned with the target.
    # Called LoRA elsewhere, which it is.
    "naive": _NAIVE,
    # The cross-attention weights themselves. No thin matrices hold them back, so the rate is lower.
    "naive-weights": replace(_NAIVE, trainable="weights", learning_rate=7.5e-4),
    # LoRA that prunes its ranks where they matter least.
    "adalora": replace(_NAIVE, trainable="adalora", learning_rate=7.5e-3),
    # DreamBooth's prior preservation: half of each batch are the model's own portraits, denoised for the base text.
    "prior-preservation": replace(
        _STAGED,
        stage1_steps=0,
        stage2_steps=STEPS,
        scale_terms=False,
        weight_prior=1.0,
        reference_portraits=64,
        reconstruction_share=1.0,
    ),
    # Masked training with a masked prior (OneTrainer): learn inside a mask drawn by hand, outside do as the base does.
    # The method's alignment with the region given instead of found.
    "given-mask": replace(
        _STAGED,
        stage1_steps=0,
        stage2_steps=STEPS,
        scale_terms=False,
        weight_output=1.0,
        map_source="given",
        denoise_outside=0.0,
    ),
    # After an extractor of the target has been tuned: the base's prediction plus what the target adds, and no more.
    "purecc": replace(_STAGED, weight_purecc=1.0),
    # The method as far as the public material tells it: maps and queries of both paths agree outside the control map.
    "paper": _PAPER,
    # Its map with the sum over the phrases as the formula stands, instead of their mean: black nearly everywhere.
    "paper-sum": replace(_PAPER, control=ControlMapOptions(subtraction="sum")),
    # The same on the cross-attention weights themselves, the paper's setting.
    "paper-weights": replace(_PAPER, trainable="weights", learning_rate=7.5e-4),
    # Ours: the predicted noise agrees outside the map, too, also on portraits of the reference model's own making, some
    # of them with the base text alone (attention maps and queries do not pin down values and output projections); what
    # lies outside the map is not learned from the set; and the map is made once, where it is clear.
    "spf": _SPF,
    # What each part does is seen by leaving it out.
    "spf-no-text": replace(_SPF, weight_text=0.0),
    "spf-no-fine": replace(_SPF, weight_fine=0.0),
    "spf-no-enhancement": replace(_SPF, weight_enhancement=0.0),
    "spf-no-map": replace(_SPF, map_source="none", denoise_outside=1.0),
    # And what the map does, by putting another one in its place: soft; anew in every step, as the paper has it; or the
    # target token's own attention.
    "spf-soft-map": replace(_SPF, control=ControlMapOptions()),
    "spf-step-map": replace(_SPF, map_source="sfcm"),
    "spf-token-map": replace(_SPF, map_source="token"),
}


def recipe(name: str, seed: int = 0) -> TrainConfig:
    """A recipe's configuration for one seed.

    Args:
        name: one of :data:`RECIPES`, and after commas what to change in it, such as ``spf,weight_enhancement=3``
            (:meth:`~spf_lite.config.TrainConfig.changed`): a sweep over a weight is a list of such names.
        seed: of the run.

    Raises:
        ValueError: for an unknown name or option; the message lists the known ones.
    """
    known, *changes = name.split(",")
    if known not in RECIPES:
        raise ValueError(f"unknown method {known!r}: expected one of {', '.join(RECIPES)}")
    return replace(RECIPES[known], seed=seed).changed(changes)


def slug(name: str) -> str:
    """A recipe's name as part of a path: ``spf,weight_enhancement=3`` is ``spf-weight-enhancement-3``."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)
