"""Counts of a training step's memory as files: what was counted, how, and the result.

Large shapes take minutes to count, so their results are kept. ``spf-lite memory --save`` writes such a file.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch

from spf_lite.models.backbone import Backbone
from spf_lite.profiling.memory import StepMemory, step_memory
from spf_lite.profiling.moments import passes
from spf_lite.profiling.shapes import shape_on_meta


@dataclass(frozen=True)
class CountedStep:
    """The memory of one training step with the settings that it was counted for.

    Attributes:
        shape: one of :data:`spf_lite.profiling.shapes.SHAPES`.
        variant: one of :data:`spf_lite.profiling.memory.VARIANTS`.
        pixels: height and width of the portraits.
        dtype: of the frozen weights, as torch names it: ``float16``.
        compute: dtype of autocast, likewise; None: no autocast.
        checkpointing: whether activations are computed again in the backward pass.
        memory: bytes by cause.
        passes: moments without gradients to the bytes of their intermediate results
            (:func:`spf_lite.profiling.moments.passes`).
    """

    shape: str
    variant: str
    pixels: int
    dtype: str
    compute: str | None
    checkpointing: bool
    memory: StepMemory
    passes: dict[str, int]

    def to_json(self) -> str:
        """The record as JSON; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CountedStep:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: if the text is no such record.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "memory": StepMemory(**fields["memory"]), "passes": dict(fields["passes"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record of a counted step: {error}") from error


def count_step(
    shape: str,
    tokenizer_of: Backbone,
    variant: str = "dual path",
    pixels: int | None = None,
    dtype: str = "float16",
    compute: str | None = "float16",
    checkpointing: bool = False,
) -> CountedStep:
    """Count the memory of one training step of a published model's shape, with an adapter of the recipes' rank.

    Args:
        shape: one of :data:`spf_lite.profiling.shapes.SHAPES`.
        tokenizer_of: a backbone whose tokenizer is used; any will do.
        variant: one of :data:`spf_lite.profiling.memory.VARIANTS`.
        pixels: height and width of the portraits; None: those that the model was trained on.
        dtype: of the frozen weights, as torch names it.
        compute: dtype of autocast, likewise; None: no autocast.
        checkpointing: whether activations are computed again in the backward pass.

    Raises:
        ValueError: for another shape or variant, or a size that the network cannot take.
    """
    backbone = shape_on_meta(shape, tokenizer_of, getattr(torch, dtype))
    pixels = pixels or backbone.side * backbone.pipe.vae_scale_factor
    autocast = None if compute is None else getattr(torch, compute)
    memory = step_memory(backbone, variant, pixels, autocast, checkpointing)
    between = {name: each.peak for name, each in passes(backbone, pixels).items()}
    return CountedStep(shape, variant, pixels, dtype, compute, checkpointing, memory, between)
