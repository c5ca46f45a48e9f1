"""The configuration of one run: frozen, checked when it is made, saved beside every checkpoint and export.

Importing this module needs the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from spf_lite.choices import WEIGHTS
from spf_lite.consistency import check_config
from spf_lite.options import ControlMapOptions, read_option


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides one run. Named configurations are in :mod:`spf_lite.training.recipes`.

    Stage 1 is ordinary fine-tuning with the denoising loss. Stage 2 compares the response path with the reference path.
    Weights and map options are those of stage 2. In stage 2 each term is brought to the size of the denoising term
    before its weight counts (``scale_terms``).

    Attributes:
        stage1_steps: optimiser steps of stage 1.
        stage2_steps: optimiser steps of stage 2; 0 is naive fine-tuning.
        batch_size: items per optimiser step, over all processes and accumulation steps.
        learning_rate: peak learning rate of AdamW.
        optimizer: ``adamw``, or ``adamw8bit``, whose two moments of large tensors have 8 bits instead of 32 (extra
            ``8bit``).
        schedule: learning rate over both stages: ``constant``, or ``cosine`` decay to zero.
        warmup_steps: steps of linear warm-up from zero.
        trainable: what is trained of the cross-attention projections: ``lora``, ``adalora``, or ``weights``, the
            projections themselves (the paper's setting).
        layers: ``cross-attention``, or ``resnets``: the convolutions of ResNet blocks as well, which then paint a
            target more sharply. Needs ``trainable=lora``.
        rank: of the low-rank factors; for AdaLoRA the average rank after pruning; unused for ``weights``.
        contrast: 0: low-rank factors start at random. More than 0 (ours): A of keys and values starts at the directions
            in which complete texts differ most from base texts (:mod:`spf_lite.method.contrast`), times this number.
            Needs ``trainable=lora`` and no stage 1.
        max_grad_norm: gradients are clipped to this norm.
        seed: of the adapter's initialisation, data order, noise and timesteps.
        weight_denoise: weight of the denoising loss (open in the paper whether it stays in stage 2; default: yes).
        weight_text: weight of the text-consistent loss.
        weight_fine: weight of the fine-grained loss.
        weight_enhancement: weight of the response-enhancement loss.
        weight_output: weight of output alignment (ours).
        enclosed: weight of the places that the map encloses in output alignment (ours); 1: like all others.
            Small things, a mouth within a beard, drown in a mean over all places.
        weight_reconstruction: weight of the reconstruction loss (ours); needs ``reference_portraits``.
        weight_prior: weight of DreamBooth's prior preservation (Ruiz et al. 2023): the denoising loss on portraits of
            the reference model, with the base text; needs ``reference_portraits``.
        weight_purecc: weight of PureCC's alignment (arXiv 2603.07561).
        scale_terms: bring every term to the size that the denoising loss has at the first step of stage 2. Switch it
            off in runs without stage 1: both paths still agree then, and terms near zero would be multiplied several
            hundredfold.
        map_source: where the target may act, one of :data:`MAPS`.
        reference_portraits: number of portraits sampled from the reference model before stage 2 (ours); 0: none.
        reference_share: share of each stage-2 batch that is taken from these, in [0, 1].
        reconstruction_share: share of these with the base text on both paths, in [0, 1].
        earlier_share: share of the reference texts that also ask for targets of earlier adapters (ours), in [0, 1]:
            what was learned before is protected where it is asked for (:mod:`spf_lite.data.earlier`). Only in runs on
            top of such adapters.
        earlier_weight: weight of the places where these targets act, in output alignment and reconstruction (ours); 1:
            like all others (:mod:`spf_lite.pure_pairs.acting`).
        original_reference: whether the reference of texts that ask for no earlier target is the model without any
            adapter (ours), so that the errors of several runs do not add up. Only with ``earlier_share``.
        anchor_share: share of each batch, in both stages, that are anchors (ours), in [0, 1]: both paths are fed one
            text without the target, and must agree everywhere. ``weight_reconstruction`` is their weight.
        anchor_empty: share of the anchors with the empty text, which guidance relies on; the others have their base
            text. In [0, 1].
        anchor_own: share of the anchors that are portraits of the custom set, in [0, 1]; the others are reference
            portraits. In stage 1, and without reference portraits, all are of the set.
        fill_captions: whether the reference model reads what all captions leave out, and base texts name it (ours).
        pure_pairs: number of portraits that are painted around the targets of the custom set, and take its place in
            stage 2 (ours); 0: stage 2 learns from the set itself.
        reach_limit: a place belongs to a phrase, and not to a ``surprise`` map, if swapping the phrase moves the
            prediction there by more than this many times the surprise. Outside the map pure pairs are repainted,
            except where the phrase is rewritten.
        learning_limit: the same for the map that stage 2 learns inside, if it is lower: a place that the target shares
            with a phrase, a mouth within a beard, is kept when a pure pair is painted, and not learned from it.
        rewrite_limit: where a phrase moves the prediction by more than this many times the surprise, the reference
            model rewrites the set's portraits for the phrase that a pure pair asks for
            (:mod:`spf_lite.pure_pairs.rewrite`), before the rest is repainted; 0: no place. Needs
            ``map_source=surprise``.
        style_limit: if the reference model, even where no target would be, is this many times as far from the set's
            portraits as from its own, the target is a style (ours): a ``surprise`` map is 1 everywhere, and stage 2
            learns from the set's own portraits, with ``fill_captions``. 0: nothing is a style. Only with
            ``reference_portraits``.
        text_forms: ``given``: texts as they are. ``both``: of each portrait there are two items, one with all phrases
            of its base text, one in which each phrase but the first is kept with probability one half (ours). If all
            captions are short and all other texts full, the length of a text predicts the target.
        timesteps: how the timesteps of training are drawn. ``uniform``: all alike. ``logit-normal``: the middle ones
            more often, as Stable Diffusion 3 was trained (Esser et al. 2024, arXiv 2403.03206); for models of a flow.
        fine_features: features of cross-attention that the fine-grained loss aligns, one of :data:`FEATURES`.
        trusted: the enhancement loss applies below this share of the timesteps, in [0, 1] (open in the paper; 0.7).
        denoise_outside: weight of the denoising loss outside the map, in [0, 1]; 1: unmasked, as in the paper; 0:
            masked training.
        map_draws: number of noises per ``averaged`` map.
        map_timesteps: ``averaged`` maps use this share of the timesteps, from the clean end, in [0, 1]. At high noise
            the paths differ in the layout of the whole image, and the map does not show the target.
        control: options of the control map.
        checkpoint_every: optimiser steps between checkpoints.
        mixed_precision: ``no``, ``fp16`` or ``bf16``: precision of the forward passes. Losses, the control map and
            trained parameters stay in float32. Frozen weights keep the type that they were loaded in.
        gradient_accumulation: accumulation steps per optimiser step; each takes an equal part of the process's items.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.

    Raises:
        ValueError: if an option is out of its range, a term lacks the portraits that it needs, or no term with a weight
            would ever apply in stage 2.
    """

    stage1_steps: int = 150
    stage2_steps: int = 150
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    optimizer: str = "adamw"
    schedule: str = "constant"
    warmup_steps: int = 0
    trainable: str = "lora"
    layers: str = "cross-attention"
    rank: int = 16
    contrast: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    weight_denoise: float = 1.0
    weight_text: float = 0.0
    weight_fine: float = 0.0
    weight_enhancement: float = 0.0
    weight_output: float = 0.0
    enclosed: float = 1.0
    weight_reconstruction: float = 0.0
    weight_prior: float = 0.0
    weight_purecc: float = 0.0
    scale_terms: bool = True
    map_source: str = "sfcm"
    reference_portraits: int = 0
    reference_share: float = 0.5
    reconstruction_share: float = 0.33
    earlier_share: float = 0.5
    earlier_weight: float = 1.0
    original_reference: bool = True
    anchor_share: float = 0.0
    anchor_empty: float = 0.5
    anchor_own: float = 0.5
    fill_captions: bool = False
    pure_pairs: int = 0
    reach_limit: float = 0.7
    learning_limit: float = 0.7
    rewrite_limit: float = 0.0
    style_limit: float = 4.0
    text_forms: str = "given"
    timesteps: str = "uniform"
    fine_features: str = "inputs"
    trusted: float = 0.7
    denoise_outside: float = 1.0
    map_draws: int = 4
    map_timesteps: float = 0.4
    control: ControlMapOptions = field(default_factory=ControlMapOptions)
    checkpoint_every: int = 100
    mixed_precision: str = "no"
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_config(self)

    def of_stage1(self) -> TrainConfig:
        """The same run with the terms of stage 1 alone: denoising, and the reconstruction of anchors if it has any."""
        weights: dict[str, Any] = dict.fromkeys(WEIGHTS.values(), 0.0) | {"weight_denoise": 1.0}
        if self.anchor_share:
            weights["weight_reconstruction"] = self.weight_reconstruction
        return replace(
            self,
            **weights,
            map_source="none",
            denoise_outside=1.0,
            reference_portraits=0,
            pure_pairs=0,
            rewrite_limit=0.0,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps of both stages."""
        return self.stage1_steps + self.stage2_steps

    def weight(self, term: str) -> float:
        """Weight of a loss term of stage 2, by its name in :data:`WEIGHTS`."""
        return float(getattr(self, WEIGHTS[term]))

    def changed(self, changes: Sequence[str]) -> TrainConfig:
        """A copy with some options changed.

        Args:
            changes: assignments like ``stage2_steps=50`` or ``control.threshold=0.2``; later ones win.

        Raises:
            ValueError: if one is no assignment, names no option (the message lists them), or its value does not fit.
        """
        values, control = asdict(self), asdict(self.control)
        for change in changes:
            name, equals, text = change.partition("=")
            group, key = (control, name.removeprefix("control.")) if name.startswith("control.") else (values, name)
            if not equals or key not in group or key == "control":
                known = [field for field in values if field != "control"] + [f"control.{field}" for field in control]
                raise ValueError(f"cannot set {change!r}: expected NAME=VALUE with one of {', '.join(known)}")
            group[key] = read_option(text, group[key], change)
        return TrainConfig(**{**values, "control": ControlMapOptions(**control)})

    def to_json(self) -> str:
        """JSON text, for :meth:`from_json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The configuration that :meth:`to_json` wrote; options that the text lacks get their defaults.

        Raises:
            ValueError: if the text is no configuration of this version, or an option is out of its range.
        """
        try:
            values = json.loads(text)
            return cls(**{**values, "control": ControlMapOptions(**values["control"])})
        except (json.JSONDecodeError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a configuration of this version: {text[:40]!r} ... ({error})") from error
