"""One tuned model, measured: every measure of every portrait, and the means with their intervals.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spf_lite.evaluation import pictures
from spf_lite.evaluation.attributes import bias_pickup, flip_rates, flips_per_attribute
from spf_lite.evaluation.judge import INPUT_SIZE, Judge, Verdict
from spf_lite.evaluation.statistics import Estimate, bootstrap
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import to_tensor
from spf_lite.models.sampling import sample
from spf_lite.tiny_world.custom_sets import SPURIOUS_ATTRIBUTES, evaluation_portraits, unnamed_attributes
from spf_lite.tiny_world.portraits import Portrait, complete, describe, get_target
from spf_lite.tiny_world.rendering import PARTS, counterfactual, true_region


@dataclass(frozen=True)
class Measure:
    """How to read a measure: what it says, which way is better (+1 higher, -1 lower), where it is defined."""

    says: str
    better: int
    source: str


#: Every measure of a :class:`PollutionReport`, in the order of its table.
MEASURES: dict[str, Measure] = {
    "target found": Measure("share of portraits in which the judge sees the target", 1, "judge"),
    "CLIP-T": Measure("cosine of portrait and target text", 1, "pictures.similarity"),
    "flip rate": Measure("share of unrelated attributes that changed", -1, "attributes.flip_rates"),
    "bias pick-up": Measure("how far attributes moved to the set's accidents", -1, "attributes.bias_pickup"),
    "leakage": Measure("share of the change outside the target's region", -1, "pictures.leakage"),
    "CLIP-I": Measure("cosine of the portraits before and after", 1, "pictures.similarity"),
    "identity": Measure("how much it is the same person", 1, "pictures.similarity"),
    "segmentation": Measure("agreement of the parts outside the region", 1, "pictures.segmentation_consistency"),
    "over-alignment": Measure("share of the needed change that did not happen", -1, "pictures.over_alignment"),
    "reconstruction": Measure("change for the base text alone", -1, "pictures.reconstruction_error"),
    "false-positive rate": Measure("share of base texts for which the target shows", -1, "judge"),
}


@dataclass(frozen=True)
class EvaluationSet:
    """What a tuned model is measured on: people, prompts, seeds, and the base model's portraits for the base texts."""

    target: str
    people: list[Portrait]
    base_texts: list[str]
    complete_texts: list[str]
    seeds: list[int]
    before: list[Image.Image]


def evaluation_set(backbone: Backbone, target: str, prompts: int, steps: int = 25) -> EvaluationSet:
    """Draw the "before" side once; every method is compared with it.

    Raises:
        ValueError: for an unknown target, or fewer than one prompt.
    """
    if prompts < 1:
        raise ValueError(f"prompts={prompts}: at least one is needed")
    people = evaluation_portraits(target, prompts)
    leave_out = unnamed_attributes(target, "named")
    base_texts = [describe(person, leave_out) for person in people]
    complete_texts = [complete(person.with_targets(target), leave_out) for person in people]
    seeds = list(range(1000, 1000 + prompts))
    with backbone.reference():
        before = sample(backbone, base_texts, seeds=seeds, steps=steps)
    return EvaluationSet(target, people, base_texts, complete_texts, seeds, before)


@dataclass(frozen=True)
class PollutionReport:
    """All measures of one tuned model on N prompts.

    Attributes:
        target: name of the target.
        values: measure to one number per prompt; None where it is not defined.
        per_attribute: share of portraits in which each unrelated attribute changed.
        bias: gain in the share of each accident of the custom set.
    """

    target: str
    values: dict[str, list[float | None]]
    per_attribute: dict[str, float]
    bias: dict[str, float]

    def estimates(self) -> dict[str, Estimate]:
        """Mean of each measure with its bootstrap interval over the prompts; undefined measures are left out."""
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
            lines.append(f"{name:<15} {estimate!s:<22} {arrow:>6} is better: {MEASURES[name].says}")
        worst = sorted(self.per_attribute.items(), key=lambda pair: -pair[1])
        lines.append("flips: " + ", ".join(f"{name} {rate:.2f}" for name, rate in worst if rate))
        lines.append("picked up: " + ", ".join(f"{name} {gain:+.2f}" for name, gain in self.bias.items()))
        return "\n".join(lines)


def estimates(reports: Sequence[PollutionReport]) -> dict[str, Estimate]:
    """Means over the prompts of several training runs, with intervals over runs and prompts.

    A prompt for which a measure is not defined after one of the runs is left out of that measure.
    """
    found = {}
    for name in reports[0].values:
        table = np.array([report.values[name] for report in reports], dtype=np.float64)  # None becomes nan
        defined = table[:, np.isfinite(table).all(axis=0)]
        if defined.size:
            found[name] = bootstrap(defined)
    return found


def measure(backbone: Backbone, judge: Judge, portraits: EvaluationSet) -> PollutionReport:
    """Measure the pipeline as it stands, with whatever adapter it carries."""
    after, again = (
        sample(backbone, texts, seeds=portraits.seeds) for texts in (portraits.complete_texts, portraits.base_texts)
    )
    return compare_portraits(backbone, judge, portraits, after, again)


def compare_portraits(
    backbone: Backbone, judge: Judge, portraits: EvaluationSet, after: list[Image.Image], again: list[Image.Image]
) -> PollutionReport:
    """All measures, given the pictures.

    Args:
        backbone: its CLIP is used.
        judge: of the tiny world.
        portraits: people, texts and the portraits before.
        after: the tuned model's portraits for the complete texts.
        again: the tuned model's portraits for the base texts.
    """
    target, people = portraits.target, portraits.people
    was, now, at_base = judge(portraits.before), judge(after), judge(again)
    x, y, r = (pictures.to_array(images) for images in (portraits.before, after, again))
    size = x.shape[1]
    region = _regions(people, target, size)
    pairs = [counterfactual(person, target, size) for person in people]
    needed = pictures.change(*(pictures.to_array([pair[side] for pair in pairs]) for side in (0, 1)))
    seen_before, seen_after = (_clip_images(backbone, images) for images in (portraits.before, after))
    text = backbone.clip.text_features([get_target(target).text]).cpu().double().numpy()
    values = {
        "target found": now.shows(target).astype(float),
        "CLIP-T": pictures.similarity(seen_after, text),
        "flip rate": flip_rates(was.attributes, now.attributes, target),
        "bias pick-up": _moved(was, now, SPURIOUS_ATTRIBUTES[target]),
        "leakage": pictures.leakage(x, y, region),
        "CLIP-I": pictures.similarity(seen_before, seen_after),
        "identity": pictures.similarity(was.identity.astype(float), now.identity.astype(float)),
        "segmentation": pictures.segmentation_consistency(
            was.parts, now.parts, _regions(people, target, INPUT_SIZE), len(PARTS)
        ),
        "over-alignment": pictures.over_alignment(x, y, needed, region),
        "reconstruction": pictures.reconstruction_error(x, r),
        "false-positive rate": at_base.shows(target).astype(float),
    }
    return PollutionReport(
        target,
        {name: [float(v) if np.isfinite(v) else None for v in row] for name, row in values.items()},
        flips_per_attribute(was.attributes, now.attributes, target),
        bias_pickup(was.attributes, now.attributes, SPURIOUS_ATTRIBUTES[target]),
    )


def _regions(people: Sequence[Portrait], target: str, size: int) -> NDArray[np.bool_]:
    """Where the target acts on each person, (N, size, size): for a style everywhere, also where it happens to meet the
    colour that was there."""
    if get_target(target).kind == "style":
        return np.ones((len(people), size, size), dtype=np.bool_)
    return np.stack([true_region(person, target, size) for person in people])


def _moved(was: Verdict, now: Verdict, accidents: Mapping[str, str]) -> NDArray[np.float64]:
    """Bias pick-up of each portrait: mean over the accidents of (has it after) - (had it before), -1 to 1."""
    pairs = zip(was.attributes, now.attributes, strict=True)
    return np.array([np.mean([(b[k] == v) - (a[k] == v) for k, v in accidents.items()]) for a, b in pairs], dtype=float)


@torch.no_grad()
def _clip_images(backbone: Backbone, images: list[Image.Image]) -> NDArray[np.float64]:
    parts = to_tensor(images).to(backbone.pipe.device).split(32)
    features = torch.cat([backbone.clip.image_features(part) for part in parts])
    return features.cpu().double().numpy()


def load_judge(backbone: Backbone) -> Judge:
    """The judge that lies beside a model's weights.

    Raises:
        FileNotFoundError: if there is none: only the tiny world can be judged.
    """
    return Judge.load(Path(backbone.spec.source) / "judge")
