"""What an audit found: every measure of every prompt, means with intervals, drift by word, and the strength sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from spf_lite.evaluation.drift import drift_by_word, in_words
from spf_lite.evaluation.statistics import Estimate, mean_interval

#: Ends the name of a measure that compares both portraits of the base text, or both of the complete text.
AT_BASE, AT_COMPLETE = " at base text", " at complete text"
#: Ends the name of a measure of what the complete text does without the adapter.
BY_WORDS = " by words alone"


@dataclass(frozen=True)
class Measure:
    """How to read a measure.

    Attributes:
        says: what it is, in one sentence.
        better: +1 if higher values are better, -1 if lower ones are, 0 if it only serves to compare.
        bounds: lowest and highest possible value; None: there are no such bounds.
    """

    says: str
    better: int
    bounds: tuple[float, float] | None = (0, 1)


_SAME = "Zero means that the adapter gives the original portrait back."
_CLIP_T = "Cosine of the target text and the portrait by CLIP,"
#: Every measure of an :class:`AuditReport`, in the order of its tables.
MEASURES: dict[str, Measure] = {
    "reconstruction": Measure(f"Mean difference of the pixels where the text does not name the target. {_SAME}", -1),
    "edge change" + AT_BASE: Measure("Share of the edges that differ where the text does not name the target.", -1),
    "CLIP-I" + AT_BASE: Measure("Cosine of CLIP's embeddings of both portraits of the base text.", 1, (-1, 1)),
    "LPIPS" + AT_BASE: Measure("Learned perceptual distance of both portraits of the base text.", -1, None),
    "DINO" + AT_BASE: Measure("Cosine of DINO's embeddings of both portraits of the base text.", 1, (-1, 1)),
    "identity distance" + AT_BASE: Measure("Distance of the faces of both portraits of the base text.", -1, None),
    "age difference" + AT_BASE: Measure("Years between the estimated ages of both portraits at base text.", -1, None),
    "expression distance" + AT_BASE: Measure("Distance of the shapes of brows, eyes and mouth at base text.", -1, None),
    "unrelated prompts": Measure("Mean difference of the pixels of pictures that show no person.", -1),
    "leakage": Measure("Share of the change by the complete text that lies outside the region of the target.", -1),
    "change outside": Measure("Mean difference of the pixels outside the region of the target.", -1),
    "change outside" + BY_WORDS: Measure("Change outside by the complete text without the adapter.", 0),
    "pixel change": Measure("Mean difference of the pixels from base to complete text. The target is part of it.", -1),
    "pixel change" + BY_WORDS: Measure("Pixel change by the complete text without the adapter.", 0),
    "pixel change" + AT_COMPLETE: Measure("Mean difference of the pixels of both portraits of the complete text.", 0),
    "edge change": Measure("Share of the edges that differ from base to complete text. The target is part of it.", -1),
    "CLIP-T before": Measure(f"{_CLIP_T} base text without the adapter.", 0, (-1, 1)),
    "CLIP-T" + BY_WORDS: Measure(f"{_CLIP_T} complete text without the adapter.", 0, (-1, 1)),
    "CLIP-T after": Measure(f"{_CLIP_T} complete text with the adapter.", 1, (-1, 1)),
    "CLIP-T gain": Measure("How much closer complete text and adapter bring the portrait to the target.", 1, (-2, 2)),
    "CLIP-T gain over words": Measure("What the adapter adds to CLIP-T over the complete text alone.", 1, (-2, 2)),
    "CLIP-I": Measure("Cosine of CLIP's embeddings before and after. The target lowers it.", 1, (-1, 1)),
    "CLIP-I" + AT_COMPLETE: Measure("Cosine of CLIP's embeddings of both portraits of the complete text.", 0, (-1, 1)),
    "LPIPS": Measure("Learned perceptual distance before and after.", -1, None),
    "DINO": Measure("Cosine of DINO's embeddings before and after.", 1, (-1, 1)),
    "identity distance": Measure("Distance of the faces before and after: below 0.6 for one person.", -1, None),
    "age difference": Measure("Years between the estimated ages before and after.", -1, None),
    "expression distance": Measure("Distance of the shapes of brows, eyes and mouth before and after.", -1, None),
}

#: A measure to one number for each prompt; None where it is not defined.
Values = dict[str, list[float | None]]


@dataclass(frozen=True)
class SweepPoint:
    """The measures of the first few prompts at one strength of the adapter.

    Attributes:
        strength: factor of the adapter's change.
        values: measure to one number per prompt.
    """

    strength: float
    values: Values

    def estimates(self) -> dict[str, Estimate]:
        """Mean of each measure with its interval over the prompts."""
        return estimates(self.values)


@dataclass(frozen=True)
class AuditReport:
    """All measures of one adapter on N prompts and U texts without a person.

    Attributes:
        target_text: what the adapter shows; None: not said.
        base_texts: N.
        complete_texts: N, or none.
        unrelated_texts: U.
        seeds: of the initial noise, N.
        values: measure to one number per prompt, or per unrelated text for ``unrelated prompts``. Measures that were
            not taken are not there.
        sweep: measures at several strengths; may be empty.
        settings: what else decides the numbers, as text: model, adapter, its parts, versions, and so on.
    """

    target_text: str | None
    base_texts: list[str]
    complete_texts: list[str]
    unrelated_texts: list[str]
    seeds: list[int]
    values: Values
    sweep: list[SweepPoint] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def estimates(self) -> dict[str, Estimate]:
        """Mean of each measure with its interval over the prompts; measures that are nowhere defined are left out."""
        return estimates(self.values)

    def drift(self) -> dict[str, Estimate]:
        """Which words of the base texts move portraits most, by their reconstruction error; largest first."""
        return drift_by_word(self.base_texts, [float(value or 0) for value in self.values["reconstruction"]])

    def ranked_by(self) -> str:
        """The measure that says which portraits are the worst: the first there is of three."""
        ranking = ("change outside", "pixel change", "reconstruction")
        return next(name for name in ranking if name in self.values)

    def worst(self, count: int) -> list[int]:
        """Indices of the prompts with the highest values of :meth:`ranked_by`, the highest first."""
        values = self.values[self.ranked_by()]
        order = sorted(range(len(values)), key=lambda i: -(values[i] if values[i] is not None else -1.0))  # type: ignore[operator]
        return order[:count]

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AuditReport:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "sweep": [SweepPoint(**point) for point in values["sweep"]]})

    def __str__(self) -> str:
        number = len(self.base_texts)
        target = f"target {self.target_text!r}" if self.target_text else "no target text"
        lines = [f"{target}, {number} {'prompt' if number == 1 else 'prompts'}"]
        lines += _lines(self.estimates())
        lines.append("words whose portraits moved most at base text: " + in_words(self.drift()))
        for point in self.sweep:
            found = point.estimates()
            shown = ", ".join(f"{name} {found[name].mean:.3f}" for name in swept(self.sweep) if name in found)
            lines.append(f"strength {point.strength:g}: {shown}")
        return "\n".join(lines)


def _lines(found: Mapping[str, Estimate]) -> list[str]:
    width = max(map(len, found), default=0)
    arrows = {1: "higher is better", -1: "lower is better", 0: ""}
    return [
        f"{name:<{width}} {estimate!s:<24} {arrows[MEASURES[name].better]:>16}: {MEASURES[name].says.split('. ')[0]}"
        for name, estimate in found.items()
    ]


#: Measures of faces.
FACES = ("identity distance", "age difference", "expression distance")
#: Measures that a sweep shows, if they were taken.
SWEPT = ("CLIP-T gain", "change outside", "leakage", "edge change", "reconstruction", *FACES)


def swept(sweep: Sequence[SweepPoint]) -> list[str]:
    """The measures of :data:`SWEPT` that a sweep has."""
    return [name for name in SWEPT if any(name in point.values for point in sweep)]


def estimates(values: Mapping[str, Sequence[float | None]]) -> dict[str, Estimate]:
    """Mean of each measure with its interval over the prompts, in the order of :data:`MEASURES`.

    A prompt for which a measure is not defined is left out of it; a measure that is nowhere defined is not there.
    """
    found = {}
    for name in MEASURES:
        row = np.array(values.get(name, []), dtype=np.float64)  # None becomes nan
        defined = row[np.isfinite(row)]
        if defined.size:
            found[name] = mean_interval(defined, MEASURES[name].bounds)
    return found
