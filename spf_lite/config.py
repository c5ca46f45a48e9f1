"""One run's configuration, frozen, serialised beside every checkpoint and export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields

#: Loss terms of stage 2 and the configuration field that holds their weight.
WEIGHTS = {
    "denoise": "weight_denoise",
    "text": "weight_text",
    "fine": "weight_fine",
    "enhancement": "weight_enhancement",
    "output": "weight_output",
    "reconstruction": "weight_reconstruction",
    "prior": "weight_prior",
    "purecc": "weight_purecc",
}
#: Where the target may act. ``sfcm``: the paper's control map, made anew in every step. ``averaged``: the same, made
#: once when stage 2 begins, from several noises at timesteps where it is clear (ours). ``token``: the target's own
#: attention map. ``given``: a mask that comes with the custom set. ``none``: nowhere (M = 0).
MAPS = ("sfcm", "averaged", "token", "given", "none")
#: What is trained on the cross-attention projections: a low-rank adapter, one that prunes its ranks, or the weights.
KINDS = ("lora", "adalora", "weights")
PRECISIONS = ("no", "fp16", "bf16")
SUBTRACTIONS = ("mean", "sum")
SCHEDULES = ("constant", "cosine")


def _check_types(options: ControlMapOptions | TrainConfig) -> None:
    """Raise ValueError unless every value has the type of its default, and numbers are of a usable size."""
    for option in fields(options):
        if option.default is MISSING:
            continue
        value, kind = getattr(options, option.name), type(option.default)
        fits = type(value) in ((int, float) if kind is float else (kind,))
        if not fits or (kind in (int, float) and abs(value) >= 2**63):
            raise ValueError(f"{option.name}={value!r:.80}: expected a value like {option.default!r}")


@dataclass(frozen=True)
class ControlMapOptions:
    """The choices that the paper leaves open.

    Attributes:
        weight: w, the weight of the subtraction.
        smoothing: side of the box that D is averaged over before anything else (1: none). A single step's difference
            is grainy.
        rescale: stretch M to [0, 1] afterwards, per portrait; without it M is a few hundredths for most targets.
        threshold: values of M below it become 0 (before ``softness`` is applied).
        softness: 0 makes M a hard mask at ``threshold``; 1 leaves it as soft as it is.
        subtraction: ``sum`` over the phrases, as the paper's formula stands, or ``mean``: that divided by the sum of
            the distances. Each phrase map is stretched to [0, 1] and about a third on average, so the sum over a few
            phrases exceeds any D, and the map is black.
    """

    weight: float = 1.0
    smoothing: int = 3
    rescale: bool = True
    threshold: float = 0.0
    softness: float = 1.0
    subtraction: str = "mean"

    def __post_init__(self) -> None:
        _check_types(self)
        if self.smoothing < 1 or self.smoothing % 2 == 0:
            raise ValueError(f"smoothing={self.smoothing}: expected an odd number of latent pixels, 1 or more")
        if self.subtraction not in ("mean", "sum"):
            raise ValueError(f"subtraction={self.subtraction!r}: expected mean or sum")
        if not 0 <= self.threshold < 1 or not 0 <= self.softness <= 1 or not self.weight >= 0:
            raise ValueError(
                f"threshold={self.threshold} must be in [0, 1), softness={self.softness} in [0, 1] and "
                f"weight={self.weight} not negative"
            )


def _read(text: str, like: object, change: str) -> object:
    """A text as a value of the same type as another."""
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"cannot set {change!r}: expected true or false")
        return text.lower() == "true"
    try:
        return float(text) if isinstance(like, float) else int(text) if isinstance(like, int) else text
    except ValueError:
        raise ValueError(f"cannot set {change[:80]!r}: expected a value like {like!r}") from None


@dataclass(frozen=True)
class TrainConfig:
    """One run. Saved beside every checkpoint and export; see :mod:`spf_lite.training.recipes` for the named recipes.

    Attributes:
        stage1_steps: steps of ordinary fine-tuning.
        stage2_steps: steps of the dual path; 0 is naive fine-tuning.
        batch_size: items per optimiser step, over all processes and parts.
        learning_rate: of AdamW, at its highest.
        schedule: of the learning rate over both stages: ``constant``, or ``cosine`` down to zero.
        warmup_steps: over which it rises from zero.
        trainable: what is trained on the cross-attention projections: ``lora``, ``adalora``, or ``weights``, the
            projections themselves (the paper's setting).
        rank: of the adapters.
        max_grad_norm: largest norm of the gradient.
        seed: of the adapter's start, the data order, noise and timesteps.
        weight_denoise: whether the denoising loss stays in stage 2 (open in the paper; yes).
        weight_text, weight_fine, weight_enhancement: of the paper's three terms. Weights compare like with like: each
            term is first brought to the size that the denoising term has when stage 2 begins, if ``scale_terms`` says
            so.
        weight_output: of output alignment (ours).
        weight_reconstruction: of the reconstruction term (ours); needs reference portraits.
        weight_prior: of prior preservation (DreamBooth, Ruiz et al. 2023): the denoising loss on reference portraits
            with the base text.
        weight_purecc: of PureCC's alignment (arXiv 2603.07561).
        scale_terms: whether terms are brought to one size. Not for runs without a stage 1: there both paths still agree
            when the sizes are measured, and what is almost nothing would be blown up several hundredfold.
        map_source: where the target may act, one of :data:`MAPS`.
        reference_portraits: how many portraits the reference model draws for itself before stage 2 (ours; 0: none).
        reference_share: share of each stage-2 batch that they make up.
        reconstruction_share: share of them whose response path is fed the base text.
        fine_features: what the fine-grained loss aligns: ``inputs``, ``queries`` or ``outputs`` of cross-attention.
        trusted: one-step predictions serve the enhancement loss below this share of the timesteps (open; 0.7).
        denoise_outside: weight of the denoising loss outside the map in stage 2; 1 is the paper's, 0 is masked
            training.
        map_draws: how many noises an ``averaged`` map is made of.
        map_timesteps: share of the timesteps, from the clean end, that they are spread over. At high noise the paths
            differ in what the whole picture is to be, and the map shows nothing of the target.
        control: options of the control map.
        checkpoint_every: steps between checkpoints.
        mixed_precision: ``no``, ``fp16`` or ``bf16``: what both paths compute in; losses, their sums and what
            is trained stay in 32 bits. Frozen weights keep the type they were loaded in.
        gradient_accumulation: parts that a process cuts its share of a batch into, to save memory.
        gradient_checkpointing: compute layers once more in the backward pass instead of keeping them: less memory,
            more time.
    """

    stage1_steps: int = 150
    stage2_steps: int = 150
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    trainable: str = "lora"
    rank: int = 16
    max_grad_norm: float = 1.0
    seed: int = 0
    weight_denoise: float = 1.0
    weight_text: float = 0.0
    weight_fine: float = 0.0
    weight_enhancement: float = 0.0
    weight_output: float = 0.0
    weight_reconstruction: float = 0.0
    weight_prior: float = 0.0
    weight_purecc: float = 0.0
    scale_terms: bool = True
    map_source: str = "sfcm"
    reference_portraits: int = 0
    reference_share: float = 0.5
    reconstruction_share: float = 0.33
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
        _check_types(self)
        if self.stage1_steps < 0 or self.stage2_steps < 0 or self.steps == 0:
            raise ValueError(f"{self.stage1_steps} + {self.stage2_steps} steps: at least one is needed, none negative")
        for name in ("batch_size", "rank", "checkpoint_every", "gradient_accumulation", "map_draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        for name in ("warmup_steps", "reference_portraits", *WEIGHTS.values()):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected more than 0")
        for name in ("reference_share", "reconstruction_share", "trusted", "map_timesteps", "denoise_outside"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to 1")
        for name, known in (
            ("trainable", KINDS),
            ("fine_features", ("inputs", "queries", "outputs")),
            ("map_source", MAPS),
            ("mixed_precision", PRECISIONS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name in ("weight_reconstruction", "weight_prior"):
            if getattr(self, name) and not self.reference_portraits:
                raise ValueError(f"{name} needs reference_portraits: there is nothing to hold the model to")

    @property
    def steps(self) -> int:
        """Optimiser steps of both stages."""
        return self.stage1_steps + self.stage2_steps

    def weight(self, term: str) -> float:
        """The weight of a loss term of stage 2, by its name in :data:`WEIGHTS`."""
        return float(getattr(self, WEIGHTS[term]))

    def changed(self, changes: Sequence[str]) -> TrainConfig:
        """A copy with some options changed.

        Args:
            changes: texts like ``stage2_steps=50`` or ``control.threshold=0.2``.

        Raises:
            ValueError: if a text is not of that kind, or names no option; the message lists the options.
        """
        values, control = asdict(self), asdict(self.control)
        for change in changes:
            name, equals, text = change.partition("=")
            group, key = (control, name.removeprefix("control.")) if name.startswith("control.") else (values, name)
            if not equals or key not in group or key == "control":
                known = [field for field in values if field != "control"] + [f"control.{field}" for field in control]
                raise ValueError(f"cannot set {change!r}: expected NAME=VALUE with one of {', '.join(known)}")
            group[key] = _read(text, group[key], change)
        return TrainConfig(**{**values, "control": ControlMapOptions(**control)})

    def to_json(self) -> str:
        """As JSON, for the folder of a run."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read back what :meth:`to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            values = json.loads(text)
            return cls(**{**values, "control": ControlMapOptions(**values["control"])})
        except (json.JSONDecodeError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a configuration of this version: {text[:40]!r} ... ({error})") from error
