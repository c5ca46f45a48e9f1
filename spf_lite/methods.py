"""Named recipes: each a configuration that a reader can hold against its neighbour.

All recipes take the same number of optimiser steps in all, on the same data, from the same seed.
"""

from __future__ import annotations

from dataclasses import replace

from spf_lite.training import TrainConfig

#: Optimiser steps of every recipe, both stages together.
STEPS = 300
_STAGED = TrainConfig(stage1_steps=150, stage2_steps=STEPS - 150)

RECIPES: dict[str, TrainConfig] = {
    # Standard fine-tuning of the cross-attention layers: whatever the set has in common is learned with the target.
    "naive": TrainConfig(stage1_steps=STEPS, stage2_steps=0),
    # The method as far as the public material tells it: maps and queries of both paths agree outside the control map.
    "paper": replace(_STAGED, weight_text=1.0, weight_fine=1.0, weight_enhancement=0.5),
    # The same, and the predicted noise agrees too, also on portraits of the reference model's own making, some of them
    # with the base text alone: attention maps and queries do not pin down values and output projections.
    "spf": replace(
        _STAGED,
        weight_text=1.0,
        weight_fine=1.0,
        weight_enhancement=0.5,
        weight_output=2.0,
        weight_reconstruction=2.0,
        reference_portraits=64,
    ),
}


def recipe(name: str, seed: int = 0) -> TrainConfig:
    """A recipe's configuration for one seed.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(RECIPES)}")
    return replace(RECIPES[name], seed=seed)
