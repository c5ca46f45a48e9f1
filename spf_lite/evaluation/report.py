"""Every measure of one tuned model, prompt by prompt, and the means with their intervals.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

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


#: Ends the name of a measure in the short text form (:data:`spf_lite.evaluation.measuring.FORMS`).
SHORT = " (short)"

#: Measures that count attributes. They are taken in both text forms.
_OF_ATTRIBUTES = {
    "pure": Measure("share of portraits with the target and nothing else changed", 1, "measures.attributes.pure"),
    "false-positive rate": Measure("share of base texts for which the target shows", -1, "judge"),
    "target found": Measure("share of portraits in which the judge sees the target", 1, "judge"),
    "flip rate": Measure("share of unrelated attributes that changed", -1, "measures.attributes.flip_rates"),
    "flip rate at base text": Measure("the same for the base text alone", -1, "measures.attributes.flip_rates"),
    "bias pick-up": Measure(
        "gain in the share of the set's spurious attributes", -1, "measures.attributes.bias_pickup", (-1, 1)
    ),
}

#: Measures that compare pictures, parts or embeddings, in the full text form.
_OF_PICTURES = {
    "CLIP-T": Measure("cosine of portrait and target text", 1, "measures.pictures.similarity", (-1, 1)),
    "leakage": Measure("share of the change outside the target's region", -1, "measures.pictures.leakage"),
    "CLIP-I": Measure("cosine of the portraits before and after", 1, "measures.pictures.similarity", (-1, 1)),
    "identity": Measure("cosine of the judge's identity embeddings", 1, "measures.pictures.similarity", (-1, 1)),
    "segmentation": Measure(
        "agreement of the parts outside the region", 1, "measures.pictures.segmentation_consistency"
    ),
    "over-alignment": Measure("share of the needed change that did not happen", -1, "measures.pictures.over_alignment"),
    "reconstruction": Measure("change for the base text alone", -1, "measures.pictures.reconstruction_error"),
}

#: Every measure of a :class:`PollutionReport`, in the order of its table.
MEASURES: dict[str, Measure] = {
    **_OF_ATTRIBUTES,
    **{name + SHORT: replace(of, says=f"{of.says}, short texts") for name, of in _OF_ATTRIBUTES.items()},
    **_OF_PICTURES,
}


def measures_of(form: str) -> list[str]:
    """Names of the measures that are taken in a text form: ``full``, or ``short``."""
    return [name for name in MEASURES if name.endswith(SHORT) == (form == "short")]


def bounds_of(measure: str) -> tuple[float, float] | None:
    """Lowest and highest possible value of a measure; None for one that is not in :data:`MEASURES`."""
    return MEASURES[measure].bounds if measure in MEASURES else None


@dataclass(frozen=True)
class PollutionReport:
    """All measures of one tuned model on N prompts.

    Attributes:
        target: name of the target.
        values: measure to one number per prompt; None where it is not defined. Measures that were not taken are not
            there.
        per_attribute: share of portraits in which each unrelated attribute changed; for full texts, if these were
            measured.
        bias: gain in the share of each spurious attribute of the custom set; same texts.
        per_attribute_at_base: like ``per_attribute``, for the base texts alone.
    """

    target: str
    values: dict[str, list[float | None]]
    per_attribute: dict[str, float]
    bias: dict[str, float]
    per_attribute_at_base: dict[str, float] = field(default_factory=dict)

    @property
    def prompts(self) -> int:
        """How many prompts were measured."""
        return max(map(len, self.values.values()), default=0)

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
        lines = [f"{self.target}, {self.prompts} prompts"]
        found = self.estimates()
        width = max(map(len, found), default=0)
        for name, estimate in found.items():
            arrow = "higher" if MEASURES[name].better > 0 else "lower"
            lines.append(f"{name:<{width}} {estimate!s:<22} {arrow:>6} is better: {MEASURES[name].says}")
        lines.append("flips: " + _worst_first(self.per_attribute))
        if self.per_attribute_at_base:
            lines.append("flips at base text: " + _worst_first(self.per_attribute_at_base))
        lines.append("picked up: " + ", ".join(f"{name} {gain:+.2f}" for name, gain in self.bias.items()))
        return "\n".join(lines)


def _worst_first(rates: Mapping[str, float]) -> str:
    """Attributes with their rates, without those that never flipped."""
    return ", ".join(f"{name} {rate:.2f}" for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]) if rate)


def joined(reports: Sequence[PollutionReport]) -> PollutionReport:
    """One report with the measures of several, taken of one model in different text forms.

    Args:
        reports: on the same target and people. What is counted for each attribute is that of the first.

    Raises:
        ValueError: if there are no reports, or they are of different targets.
    """
    if len(targets := {report.target for report in reports}) != 1:
        raise ValueError(f"reports of one target are joined, not of {', '.join(sorted(targets)) or 'none'}")
    values = {name: row for report in reports for name, row in report.values.items()}
    return replace(reports[0], values={name: values[name] for name in _in_order(values)})


def _in_order(names: Iterable[str]) -> list[str]:
    """Names of measures without duplicates: those of :data:`MEASURES` first, in its order."""
    present = dict.fromkeys(names)
    return [*(name for name in MEASURES if name in present), *(name for name in present if name not in MEASURES)]


def estimates(reports: Sequence[PollutionReport]) -> dict[str, Estimate]:
    """Means of one method's measures, with intervals over its training runs and their prompts.

    A prompt for which a measure is not defined after one of the runs is left out of that measure; so is a run for which
    it was not taken.

    Args:
        reports: one for each training run, all on the same prompts.

    Returns:
        Measure to estimate, in the order of :data:`MEASURES`.
    """
    found = {}
    for name in _in_order(name for report in reports for name in report.values):
        runs = [report.values[name] for report in reports if name in report.values]
        table = np.array(runs, dtype=np.float64)  # None becomes nan
        defined = table[:, np.isfinite(table).all(axis=0)]
        if defined.size:
            found[name] = mean_interval(defined, bounds_of(name))
    return found
