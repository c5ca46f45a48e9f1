"""From a tuned model to its report: sample the same people before and after, compare them by every measure.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spf_lite.evaluation.judge import INPUT_SIZE, Judge, Verdict, load_judge
from spf_lite.evaluation.measures import pictures
from spf_lite.evaluation.measures.attributes import bias_pickup, flip_rates, flips_per_attribute, pure
from spf_lite.evaluation.report import SHORT, PollutionReport, joined
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import to_tensor
from spf_lite.models.running.sampling import sample
from spf_lite.tiny_world.custom_sets import chosen_portraits, spurious_attributes, unnamed_attributes
from spf_lite.tiny_world.portraits import Portrait, complete, describe, get_target
from spf_lite.tiny_world.rendering import PARTS, counterfactual, true_region

#: The text forms, and the captions (:data:`spf_lite.tiny_world.custom_sets.CAPTIONS`) that name the same attributes.
#: Full texts name every attribute; short ones leave out the spurious attributes, as silent captions do.
FORMS = {"full": "named", "short": "silent"}
#: Of the initial noise of the first person; each further one has the next.
FIRST_SEED = 1000


@dataclass(frozen=True)
class EvaluationSet:
    """N people that no custom set has shown, their prompts, and the base model's portraits of them.

    Attributes:
        target: name of the target.
        people: N descriptions, without the target.
        base_texts: N prompts without the target.
        complete_texts: the same with the target.
        seeds: N, of the initial noise.
        base_portraits: N, by the base model for the base texts.
        form: of the texts, one of :data:`FORMS`.

    Raises:
        ValueError: for an unknown form.
    """

    target: str
    people: list[Portrait]
    base_texts: list[str]
    complete_texts: list[str]
    seeds: list[int]
    base_portraits: list[Image.Image]
    form: str = "full"

    def __post_init__(self) -> None:
        _check_form(self.form)


def _check_form(form: str) -> None:
    """Raise ValueError for an unknown form."""
    if form not in FORMS:
        raise ValueError(f"unknown text form {form!r}: expected one of {', '.join(FORMS)}")


def sample_evaluation_set(
    backbone: Backbone, target: str, prompts: int | Sequence[int], steps: int = 25, form: str = "full"
) -> EvaluationSet:
    """People, prompts and seeds, always the same for a target, and the base model's portraits.

    Both forms have the same people and seeds.

    Args:
        backbone: its adapter, if it has one, is off.
        target: name of the target.
        prompts: how many people, or the numbers of some of them, from 0.
        steps: denoising steps of each portrait.
        form: of the texts, one of :data:`FORMS`.

    Raises:
        ValueError: for an unknown target or form, or fewer than one prompt.
    """
    _check_form(form)
    numbers = range(prompts) if isinstance(prompts, int) else prompts
    if not numbers:
        raise ValueError(f"prompts={prompts}: at least one is needed")
    if min(numbers) < 0:
        raise ValueError(f"prompts={prompts}: people are numbered from 0")
    people = chosen_portraits(target, numbers)
    leave_out = unnamed_attributes(target, FORMS[form])
    base_texts = [describe(person, leave_out) for person in people]
    complete_texts = [complete(person.with_targets(target), leave_out) for person in people]
    seeds = [FIRST_SEED + number for number in numbers]
    with backbone.reference():
        base_portraits = sample(backbone, base_texts, seeds=seeds, steps=steps)
    return EvaluationSet(target, people, base_texts, complete_texts, seeds, base_portraits, form)


def sample_evaluation_sets(
    backbone: Backbone, target: str, prompts: int, steps: int = 25, forms: Collection[str] = tuple(FORMS)
) -> list[EvaluationSet]:
    """One :func:`sample_evaluation_set` for each text form, in the order of :data:`FORMS`.

    Raises:
        ValueError: for an unknown target, no form or an unknown one, or fewer than one prompt. Nothing was sampled.
    """
    for form in forms:
        _check_form(form)
    if not forms:
        raise ValueError(f"no text form: expected some of {', '.join(FORMS)}")
    return [sample_evaluation_set(backbone, target, prompts, steps, form) for form in FORMS if form in forms]


def measure(
    backbone: Backbone,
    target: str,
    prompts: int = 64,
    steps: int = 25,
    spurious: Mapping[str, str] | None = None,
    forms: Collection[str] = tuple(FORMS),
) -> PollutionReport:
    """Measure how well a tuned model shows a target, and what else has changed: ``print(measure(backbone, "beard"))``.

    Samples three portraits of each person in each text form from the same noise: by the base model for the base text,
    and by the tuned model for the complete and for the base text.

    Args:
        backbone: a model of the tiny world with what it has learned: just trained, or with a loaded adapter.
        target: name of the target (:data:`spf_lite.tiny_world.portraits.TARGETS`).
        prompts: how many people. 64 take about two minutes for each form on one processor core.
        steps: denoising steps of each portrait.
        spurious: what the custom set's portraits share besides the target; None: the shipped set's
            (:func:`spf_lite.tiny_world.custom_sets.spurious_attributes`).
        forms: of the texts, some of :data:`FORMS`. Measures of short texts have names that end in "(short)"; measures
            of pictures are taken for full texts only.

    Raises:
        FileNotFoundError: if no judge lies beside the model: only the tiny world can be judged.
        ValueError: for an unknown target, no form or an unknown one, or fewer than one prompt.
    """
    judge = load_judge(backbone, target)
    evaluation_sets = sample_evaluation_sets(backbone, target, prompts, steps, forms)
    return measure_on(backbone, judge, evaluation_sets, steps, spurious)


def measure_on(
    backbone: Backbone,
    judge: Judge,
    evaluation_sets: Sequence[EvaluationSet],
    steps: int = 25,
    spurious: Mapping[str, str] | None = None,
) -> PollutionReport:
    """Measure a tuned model on evaluation sets that several models share (:func:`sample_evaluation_sets`).

    The sets do not depend on ``spurious``: models of differently confounded custom sets share them, too.

    Raises:
        ValueError: if there are no sets, or they are of different targets.
    """
    reports = []
    for of in evaluation_sets:
        after, again = (
            sample(backbone, texts, seeds=of.seeds, steps=steps) for texts in (of.complete_texts, of.base_texts)
        )
        reports.append(compare_portraits(backbone, judge, of, after, again, spurious))
    return joined(reports)


def compare_portraits(
    backbone: Backbone,
    judge: Judge,
    evaluation_set: EvaluationSet,
    after: list[Image.Image],
    again: list[Image.Image],
    spurious: Mapping[str, str] | None = None,
) -> PollutionReport:
    """All measures of one text form, given the portraits: for short texts those that count attributes.

    Args:
        backbone: its CLIP is used.
        judge: of the tiny world.
        evaluation_set: people, texts and the base model's portraits.
        after: N, by the tuned model for the complete texts.
        again: N, by the tuned model for the base texts.
        spurious: what the custom set's portraits share besides the target; None: the shipped set's.
    """
    target = evaluation_set.target
    spurious = spurious_attributes(target) if spurious is None else spurious
    was, now, at_base = judge(evaluation_set.base_portraits), judge(after), judge(again)
    values = {
        "pure": pure(was.attributes, now.attributes, target),
        "false-positive rate": at_base.shows(target).astype(np.float64),
        "target found": now.shows(target).astype(np.float64),
        "flip rate": flip_rates(was.attributes, now.attributes, target),
        "flip rate at base text": flip_rates(was.attributes, at_base.attributes, target),
        "bias pick-up": _bias_of_each(was, now, spurious),
    }
    if evaluation_set.form == "full":
        values |= _of_pictures(backbone, evaluation_set, after, again, was, now)
    else:
        values = {name + SHORT: row for name, row in values.items()}
    return PollutionReport(
        target,
        {name: [float(v) if np.isfinite(v) else None for v in row] for name, row in values.items()},
        flips_per_attribute(was.attributes, now.attributes, target),
        bias_pickup(was.attributes, now.attributes, spurious),
        flips_per_attribute(was.attributes, at_base.attributes, target),
    )


def _of_pictures(
    backbone: Backbone,
    evaluation_set: EvaluationSet,
    after: list[Image.Image],
    again: list[Image.Image],
    was: Verdict,
    now: Verdict,
) -> dict[str, NDArray[np.float64]]:
    """The measures that compare pictures, parts or embeddings: name to (N,)."""
    target, people, before = evaluation_set.target, evaluation_set.people, evaluation_set.base_portraits
    x, y, r = (pictures.to_array(images) for images in (before, after, again))
    size = x.shape[1]
    region = _regions(people, target, size)
    pairs = [counterfactual(person, target, size) for person in people]
    needed = pictures.change(*(pictures.to_array([pair[side] for pair in pairs]) for side in (0, 1)))
    seen_before, seen_after = (clip_images(backbone, images) for images in (before, after))
    text = backbone.clip.text_features([get_target(target).text]).cpu().double().numpy()
    return {
        "CLIP-T": pictures.similarity(seen_after, text),
        "leakage": pictures.leakage(x, y, region),
        "CLIP-I": pictures.similarity(seen_before, seen_after),
        "identity": pictures.similarity(was.identity.astype(np.float64), now.identity.astype(np.float64)),
        "segmentation": pictures.segmentation_consistency(
            was.parts, now.parts, _regions(people, target, INPUT_SIZE), len(PARTS)
        ),
        "over-alignment": pictures.over_alignment(x, y, needed, region),
        "reconstruction": pictures.reconstruction_error(x, r),
    }


def _regions(people: Sequence[Portrait], target: str, size: int) -> NDArray[np.bool_]:
    """Region of the target on each person, (N, size, size). A style needs the whole picture, also where its colour
    happens to be that of the portrait before."""
    if get_target(target).kind == "style":
        return np.ones((len(people), size, size), dtype=np.bool_)
    return np.stack([true_region(person, target, size) for person in people])


def _bias_of_each(was: Verdict, now: Verdict, spurious: Mapping[str, str]) -> NDArray[np.float64]:
    """Bias pick-up of each portrait, (N,): mean over the spurious attributes of (has it after) - (had it before)."""
    return np.array(
        [
            np.mean([(new[name] == value) - (old[name] == value) for name, value in spurious.items()])
            for old, new in zip(was.attributes, now.attributes, strict=True)
        ],
        dtype=np.float64,
    )


@torch.no_grad()
def clip_images(backbone: Backbone, images: list[Image.Image]) -> NDArray[np.float64]:
    """CLIP's embeddings of N pictures, (N, D).

    Args:
        backbone: whose CLIP it is.
        images: of one size.
    """
    parts = to_tensor(images).to(backbone.pipe.device).split(32)
    features = torch.cat([backbone.clip.image_features(part) for part in parts])
    embeddings: NDArray[np.float64] = features.cpu().double().numpy()
    return embeddings
