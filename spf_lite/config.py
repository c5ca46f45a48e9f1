"""One run's configuration, frozen, serialised beside every checkpoint and export."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from spf_lite.control_map import ControlMapOptions
from spf_lite.trainable import KINDS

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
#: Where the target may act: the paper's control map, the target's own attention map, or nowhere (M = 0).
MAPS = ("sfcm", "token", "none")


@dataclass(frozen=True)
class TrainConfig:
    """One run. Saved beside every checkpoint and export; see :mod:`spf_lite.methods` for the named recipes.

    Attributes:
        stage1_steps: steps of ordinary fine-tuning.
        stage2_steps: steps of the dual path; 0 is naive fine-tuning.
        batch_size: items per step.
        learning_rate: of AdamW.
        trainable: what is trained on the cross-attention projections: ``lora``, ``adalora``, or ``weights``, the
            projections themselves (the paper's setting).
        rank: of the adapters.
        max_grad_norm: largest norm of the gradient.
        seed: of the adapter's start, the data order, noise and timesteps.
        weight_denoise: whether the denoising loss stays in stage 2 (open in the paper; yes).
        weight_text, weight_fine, weight_enhancement: of the paper's three terms. Weights compare like with like: each
            term is first brought to the size that the denoising term has when stage 2 begins.
        weight_output: of output alignment (ours).
        weight_reconstruction: of the reconstruction term (ours); needs reference portraits.
        weight_prior: of prior preservation (DreamBooth, Ruiz et al. 2023): the denoising loss on reference portraits
            with the base text.
        weight_purecc: of PureCC's alignment (arXiv 2603.07561).
        map_source: where the target may act, one of :data:`MAPS`.
        reference_portraits: how many portraits the reference model draws for itself before stage 2 (ours; 0: none).
        reference_share: share of each stage-2 batch that they make up.
        reconstruction_share: share of them whose response path is fed the base text.
        fine_features: what the fine-grained loss aligns: ``inputs``, ``queries`` or ``outputs`` of cross-attention.
        trusted: one-step predictions serve the enhancement loss below this share of the timesteps (open; 0.7).
        control: options of the control map.
        checkpoint_every: steps between checkpoints.
    """

    stage1_steps: int = 150
    stage2_steps: int = 150
    batch_size: int = 8
    learning_rate: float = 6e-4
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
    map_source: str = "sfcm"
    reference_portraits: int = 0
    reference_share: float = 0.5
    reconstruction_share: float = 0.33
    fine_features: str = "inputs"
    trusted: float = 0.7
    control: ControlMapOptions = field(default_factory=ControlMapOptions)
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if self.stage1_steps < 0 or self.stage2_steps < 0 or self.stage1_steps + self.stage2_steps == 0:
            raise ValueError(f"{self.stage1_steps} + {self.stage2_steps} steps: at least one is needed, none negative")
        for name in ("batch_size", "rank", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.trainable not in KINDS:
            raise ValueError(f"trainable={self.trainable!r}: expected one of {', '.join(KINDS)}")
        if self.fine_features not in ("inputs", "queries", "outputs"):
            raise ValueError(f"fine_features={self.fine_features!r}: expected inputs, queries or outputs")
        if self.map_source not in MAPS:
            raise ValueError(f"map_source={self.map_source!r}: expected one of {', '.join(MAPS)}")
        for name in ("weight_reconstruction", "weight_prior"):
            if getattr(self, name) and not self.reference_portraits:
                raise ValueError(f"{name} needs reference_portraits: there is nothing to hold the model to")

    def to_json(self) -> str:
        """As JSON, for the folder of a run."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "control": ControlMapOptions(**values["control"])})
