"""Every measure of one tuned model, prompt by prompt, and the means with their intervals.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from spf_lite.evaluation.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Measure:
    """How to read a measure.

    Attributes:
        says: what it counts.
        better: +1 if higher values are better, -1 if lower ones are.
        source: where it is computed, as a module or function of :mod:`spf_lite.evaluation`.
        bounds: lowest and highest possible value.
    """

    says: str
    better: int
    source: str
    bounds: tuple[float, float] = (0, 1)


#: Every measure of a :class:`PollutionReport`, in the order of its table.
MEASURES: dict[str, Measure] = {
    "target found": Measure("share of portraits in which the judge sees the target", 1, "judge"),
    "CLIP-T": Measure("cosine of portrait and target text", 1, "pictures.similarity", (-1, 1)),
    "flip rate": Measure("share of unrelated attributes that changed", -1, "attributes.flip_rates"),
    "bias pick-up": Measure(
        "gain in the share of the set's spurious attributes", -1, "attributes.bias_pickup", (-1, 1)
    ),
    "leakage": Measure("share of the change outside the target's region", -1, "pictures.leakage"),
    "CLIP-I": Measure("cosine of the portraits before and after", 1, "pictures.similarity", (-1, 1)),
    "identity": Measure("cosine of the judge's identity embeddings", 1, "pictures.similarity", (-1, 1)),
    "segmentation": Measure("agreement of the parts outside the region", 1, "pictures.segmentation_consistency"),
    "over-alignment": Measure("share of the needed change that did not happen", -1, "pictures.over_alignment"),
    "reconstruction": Measure("change for the base text alone", -1, "pictures.reconstruction_error"),
    "false-positive rate": Measure("share of base texts for which the target shows", -1, "judge"),
}


def bounds_of(measure: str) -> tuple[float, float] | None:
    """Lowest and highest possible value of a measure; None for one that is not in :data:`MEASURES`."""
    return MEASURES[measure].bounds if measure in MEASURES else None


@dataclass(frozen=True)
class PollutionReport:
    """All measures of one tuned model on N prompts.

    Attributes:
        target: name of the target.
        values: measure to one number per prompt; None where it is not defined.
        per_attribute: share of portraits in which each unrelated attribute changed.
        bias: gain in the share of each spurious attribute of the custom set.
    """

    target: str
    values: dict[str, list[float | None]]
    per_attribute: dict[str, float]
    bias: dict[str, float]

    def estimates(self) -> dict[str, Estimate]:
        """Mean of each measure with its interval over the prompts; measures that are nowhere defined are left out."""
        return estimates([self])

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PollutionReport:
        """Read back what :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        lines = [f"{self.target}, {len(self.values['target found'])} prompts"]
        for name, estimate in self.estimates().items():
            arrow = "higher" if MEASURES[name].better > 0 else "lower"
            lines.append(f"{name:<20} {estimate!s:<22} {arrow:>6} is better: {MEASURES[name].says}")
        worst = sorted(self.per_attribute.items(), key=lambda pair: -pair[1])
        lines.append("flips: " + ", ".join(f"{name} {rate:.2f}" for name, rate in worst if rate))
        lines.append("picked up: " + ", ".join(f"{name} {gain:+.2f}" for name, gain in self.bias.items()))
        return "\n".join(lines)


def estimates(reports: Sequence[PollutionReport]) -> dict[str, Estimate]:
    """Means of one method's measures, with intervals over its training runs and their prompts.

    A prompt for which a measure is not defined after one of the runs is left out of that measure.

    Args:
        reports: one for each training run, all on the same prompts.
    """
    found = {}
    for name in reports[0].values:
        table = np.array([report.values[name] for report in reports], dtype=np.float64)  # None becomes nan
        defined = table[:, np.isfinite(table).all(axis=0)]
        if defined.size:
            found[name] = mean_interval(defined, bounds_of(name))
    return found
