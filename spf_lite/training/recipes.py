"""Named recipes: baselines, the method, its ablations, each as one configuration.

All recipes but that of pure pairs take the same number of optimiser steps in all, on the same data, from the same seed.
A fair baseline of pure pairs takes as many: ``naive,stage1_steps=1000``.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from spf_lite.config import TrainConfig
from spf_lite.options import ControlMapOptions

#: Optimiser steps of every recipe, both stages together.
STEPS = 300
#: Of the recipe of pure pairs and its ablations.
PAIR_STEPS = 1000
_STAGED = TrainConfig(stage1_steps=STEPS // 2, stage2_steps=STEPS - STEPS // 2)
_NAIVE = TrainConfig(stage1_steps=STEPS, stage2_steps=0)
_GIVEN_MASK = replace(
    _STAGED,
    stage1_steps=0,
    stage2_steps=STEPS,
    scale_terms=False,
    weight_output=1.0,
    map_source="given",
    denoise_outside=0.0,
)
# Hygiene, not a method: every way of training can have it. In half of each batch the response path is fed the base text
# or the empty text, and must predict what the reference path predicts.
_ANCHORS: dict[str, Any] = {
    "weight_reconstruction": 1.0,
    "anchor_share": 0.5,
    "reference_portraits": 64,
    "reference_share": 0.0,
}
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
    # A hard map: the alignment that a soft one leaves inside the target's region is enough to remove the target again.
    control=ControlMapOptions(threshold=0.2, softness=0.0),
)

# Ours, the recipe of pure pairs: no stage 1. The reference model reads what the captions leave out, is surprised where
# the target is, rewrites what other phrases share with it, and paints new people around it. Stage 2 learns the target
# inside the map; outside of it, and for every text without the target, the response path agrees with the reference
# path.
_PURE_PAIRS = TrainConfig(
    stage1_steps=0,
    stage2_steps=PAIR_STEPS,
    schedule="cosine",
    warmup_steps=20,
    scale_terms=False,
    weight_denoise=0.3,
    weight_output=1.0,
    enclosed=9.0,
    weight_reconstruction=1.0,
    denoise_outside=0.0,
    reference_portraits=128,
    reference_share=0.0,
    anchor_share=0.5,
    anchor_empty=0.25,
    map_source="surprise",
    fill_captions=True,
    pure_pairs=96,
    rewrite_limit=0.25,
    text_forms="both",
    contrast=3.0,
    layers="resnets",
)

RECIPES: dict[str, TrainConfig] = {
    # Standard fine-tuning of the cross-attention layers: whatever the set has in common is learned with the target.
    # Called LoRA elsewhere, which it is.
    "naive": _NAIVE,
    # The cross-attention weights themselves. They are not limited by a rank, so the learning rate is lower.
    "naive-weights": replace(_NAIVE, trainable="weights", learning_rate=7.5e-4),
    # LoRA that prunes its ranks where they matter least.
    "adalora": replace(_NAIVE, trainable="adalora", learning_rate=7.5e-3),
    # DreamBooth's prior preservation: half of each batch are reference portraits, denoised for the base text.
    "prior-preservation": replace(
        _STAGED,
        stage1_steps=0,
        stage2_steps=STEPS,
        scale_terms=False,
        weight_prior=1.0,
        reference_portraits=64,
        reconstruction_share=1.0,
    ),
    # Masked training with a masked prior (OneTrainer): inside a given mask the set is learned, outside it the output is
    # held to the reference path's. The method's alignment with a map that is given instead of found.
    "given-mask": _GIVEN_MASK,
    # PureCC: stage 1 tunes an extractor, stage 2 aligns with the reference prediction plus what the extractor adds.
    "purecc": replace(_STAGED, weight_purecc=1.0),
    # SPF-Portrait as far as it is published: attention maps and features of both paths agree outside the control map.
    "paper": _PAPER,
    # The same with the published formula's sum over the phrases instead of their mean: the map is nearly all black.
    "paper-sum": replace(_PAPER, control=ControlMapOptions(subtraction="sum")),
    # The same on the cross-attention weights themselves, the paper's setting.
    "paper-weights": replace(_PAPER, trainable="weights", learning_rate=7.5e-4),
    # Ours. Attention maps and features leave values and output projections free, so the predicted noise is aligned
    # outside the map as well. Reference portraits join the batches, some with the base text alone. What lies outside
    # the map is not learned from the set. The map is made once, at timesteps where it is clear.
    "spf": _SPF,
    "pure-pairs": _PURE_PAIRS,
    # Baselines with anchors on reference portraits and on the set's own, texts in both forms.
    "naive-anchors": replace(
        _NAIVE, stage1_steps=0, stage2_steps=STEPS, scale_terms=False, text_forms="both", **_ANCHORS
    ),
    "paper-weights-anchors": replace(_PAPER, trainable="weights", learning_rate=7.5e-4, text_forms="both", **_ANCHORS),
    "given-mask-anchors": replace(_GIVEN_MASK, text_forms="both", **_ANCHORS),
    # Differential output preservation, as OneTrainer, ai-toolkit and SimpleTuner have it: the set's own portraits with
    # the base text keep the reference's prediction. Blank prompt preservation is the same with the empty text.
    "dop": replace(_NAIVE, weight_reconstruction=1.0, anchor_share=0.5, anchor_empty=0.0, anchor_own=1.0),
    "bpp": replace(_NAIVE, weight_reconstruction=1.0, anchor_share=0.5, anchor_empty=1.0, anchor_own=1.0),
    # Ablations of the recipe of pure pairs: one part left out, or replaced.
    "pure-pairs-random-start": replace(_PURE_PAIRS, contrast=0.0),
    "pure-pairs-no-anchors": replace(
        _PURE_PAIRS, weight_reconstruction=0.0, anchor_share=0.0, reference_portraits=0, reference_share=0.5
    ),
    "pure-pairs-cross-attention": replace(_PURE_PAIRS, layers="cross-attention"),
    "pure-pairs-no-rewriting": replace(_PURE_PAIRS, rewrite_limit=0.0),
    "pure-pairs-own-portraits": replace(_PURE_PAIRS, pure_pairs=0, rewrite_limit=0.0),
    "pure-pairs-own-captions": replace(_PURE_PAIRS, fill_captions=False),
    "pure-pairs-given-texts": replace(_PURE_PAIRS, text_forms="given"),
    "pure-pairs-no-enclosed": replace(_PURE_PAIRS, enclosed=1.0),
    # The paper's terms within the recipe of pure pairs: does one of them still help?
    "pure-pairs-text": replace(_PURE_PAIRS, weight_text=1.0),
    "pure-pairs-fine": replace(_PURE_PAIRS, weight_fine=1.0),
    "pure-pairs-enhancement": replace(_PURE_PAIRS, weight_enhancement=0.1),
    "pure-pairs-given-mask": replace(_PURE_PAIRS, map_source="given", rewrite_limit=0.0),
    # Ablations: one part left out.
    "spf-no-text": replace(_SPF, weight_text=0.0),
    "spf-no-fine": replace(_SPF, weight_fine=0.0),
    "spf-no-enhancement": replace(_SPF, weight_enhancement=0.0),
    "spf-no-map": replace(_SPF, map_source="none", denoise_outside=1.0),
    # Ablations of the map: soft; made anew in every step, as in the paper; the target tokens' own attention map.
    "spf-soft-map": replace(_SPF, control=ControlMapOptions()),
    "spf-step-map": replace(_SPF, map_source="sfcm"),
    "spf-token-map": replace(_SPF, map_source="token"),
}


#: What a run after earlier adapters has otherwise. It learns more texts: those that ask for earlier targets, and those
#: that have to forget them.
AFTER: dict[str, dict[str, Any]] = {"pure-pairs": {"stage2_steps": 1600, "earlier_share": 0.75, "earlier_weight": 5.0}}


def recipe(name: str, seed: int = 0, after: bool = False) -> TrainConfig:
    """A recipe's configuration for one seed.

    Args:
        name: one of :data:`RECIPES`, and after commas what to change in it, such as ``spf,weight_enhancement=3``
            (:meth:`~spf_lite.config.TrainConfig.changed`): a sweep over a weight is a list of such names.
        seed: of the run.
        after: whether it is a run on top of earlier adapters (:data:`AFTER`).

    Raises:
        ValueError: for an unknown name or option; the message lists the known ones.
    """
    known, *changes = name.split(",")
    if known not in RECIPES:
        raise ValueError(f"unknown method {known!r}: expected one of {', '.join(RECIPES)}")
    return replace(RECIPES[known], seed=seed, **(AFTER.get(known, {}) if after else {})).changed(changes)


def recipe_name(config: TrainConfig) -> str | None:
    """The name of the recipe that has this configuration, with whatever seed; None if no recipe has."""
    return next(
        (name for name in RECIPES for after in (False, True) if recipe(name, config.seed, after) == config), None
    )


def slug(name: str) -> str:
    """A recipe's name as part of a path: ``spf,weight_enhancement=3`` is ``spf-weight-enhancement-3``."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)
