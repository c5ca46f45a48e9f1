"""What a model that has learned several targets shows: each of them, all together, and what should not have changed.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random

import numpy as np
from PIL import Image

from spf_lite.data.prompts import split_phrases
from spf_lite.evaluation.judge import Judge, head_of
from spf_lite.evaluation.measures import pictures
from spf_lite.evaluation.measures.attributes import flip_rates, pure
from spf_lite.evaluation.measuring import FIRST_SEED, EvaluationSet, clip_images
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample
from spf_lite.tiny_world.custom_sets import evaluation_portraits
from spf_lite.tiny_world.portraits import complete, describe, get_target

#: Texts without any target, at which nothing may change: base texts, and texts of another form.
PLAIN_TEXTS = ("base", "unrelated")


@dataclass(frozen=True)
class Stage:
    """What a model shows after a stage, each measure with one number for each of N prompts.

    Attributes:
        learned: the targets so far, in their order.
        found: target to whether it is shown when asked alone.
        pure: target to whether it is shown when asked alone, nothing unrelated changed, and no other target is there.
        unasked: whether any of the targets is shown for the base text.
        together: target to whether it is shown when all are asked.
        flips: kind of text (:data:`PLAIN_TEXTS`) to the flip rate there.
        moved: kind of text to the reconstruction error, in [0, 1]
            (:func:`spf_lite.evaluation.measures.pictures.reconstruction_error`).
        clip_i: kind of text to CLIP's similarity of the portraits before and after.
    """

    learned: tuple[str, ...]
    found: dict[str, list[float]]
    pure: dict[str, list[float]]
    unasked: list[float]
    together: dict[str, list[float]]
    flips: dict[str, list[float]]
    moved: dict[str, list[float]]
    clip_i: dict[str, list[float]]

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Stage:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "learned": tuple(values["learned"])})


def measured_stage(
    backbone: Backbone, judge: Judge, learned: Sequence[str], evaluation_sets: Mapping[str, EvaluationSet]
) -> Stage:
    """Measure a model that has learned some targets.

    Args:
        backbone: with its adapters.
        judge: of the tiny world.
        learned: the targets, in their order.
        evaluation_sets: of each target, with the base portraits of the model that had learned none.
    """

    def painted(texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return sample(backbone, list(texts), seeds=seeds)

    def shown(verdicts: Sequence[Mapping[str, str]], target: str) -> np.ndarray:
        return np.array([verdict[head_of(target)] == target for verdict in verdicts], dtype=float)

    found, clean = {}, {}
    for target in learned:
        of = evaluation_sets[target]
        before = judge.attributes(of.base_portraits)
        after = judge.attributes(painted(of.complete_texts, of.seeds))
        others = sum((shown(after, other) for other in learned if other != target), np.zeros(len(after)))
        found[target] = shown(after, target).tolist()
        clean[target] = (pure(before, after, target) * (others == 0)).tolist()
    newest = evaluation_sets[learned[-1]]
    plain, seeds = unrelated_texts(len(newest.seeds)), range(FIRST_SEED, FIRST_SEED + len(newest.seeds))
    with backbone.reference():
        untouched = painted(plain, seeds)
    pairs = {
        "base": (newest.base_portraits, painted(newest.base_texts, newest.seeds)),
        "unrelated": (untouched, painted(plain, seeds)),
    }
    verdicts = {kind: (judge.attributes(one), judge.attributes(two)) for kind, (one, two) in pairs.items()}
    asked = judge.attributes(painted(together(learned, len(seeds)), seeds))
    return Stage(
        tuple(learned),
        found,
        clean,
        np.max([shown(verdicts["base"][1], target) for target in learned], axis=0).tolist(),
        {target: shown(asked, target).tolist() for target in learned},
        {kind: flip_rates(before, after, learned[-1]).tolist() for kind, (before, after) in verdicts.items()},
        {
            kind: pictures.reconstruction_error(*(pictures.to_array(images) for images in pair)).tolist()
            for kind, pair in pairs.items()
        },
        {
            kind: pictures.similarity(*(clip_images(backbone, images) for images in pair)).tolist()
            for kind, pair in pairs.items()
        },
    )


def unrelated_texts(prompts: int) -> list[str]:
    """Texts of a form that no training has seen: two phrases of a person alone, the later one first."""
    rng, texts = Random(0), []
    for person in evaluation_portraits("sunglasses", prompts):
        phrases = split_phrases(describe(person))[1:]
        first, second = sorted(rng.sample(range(len(phrases)), 2))
        texts.append(f"{phrases[second]}, {phrases[first]}")
    return texts


def together(targets: Sequence[str], prompts: int) -> list[str]:
    """Complete texts that ask for all of some targets, the same people whatever the targets."""
    hidden = [spec.color for spec in map(get_target, targets) if spec.color]
    people = evaluation_portraits("sunglasses", prompts)  # nobody wears glasses, which some targets would cover
    return [complete(person.with_targets(*targets), hidden) for person in people]
