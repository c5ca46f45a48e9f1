"""The data of :class:`~spf_lite.widgets.BeforeAfter`: the same people by several models, and what the judge sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from spf_lite.evaluation.judge import Judge
from spf_lite.evaluation.measuring import FIRST_SEED, FORMS
from spf_lite.evaluation.portraits import in_words, unrelated_changes
from spf_lite.tiny_world.custom_sets import chosen_portraits, unnamed_attributes
from spf_lite.tiny_world.portraits import complete, describe, get_target


def before_after_items(
    portraits: Mapping[str, Sequence[Image.Image]],
    target: str,
    judge: Judge,
    at_base: Mapping[str, Sequence[Image.Image]] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """One item for each person, with the unrelated changes and whether the target is there.

    Args:
        portraits: from :func:`~spf_lite.evaluation.portraits.sampled_portraits`: name to N portraits, ``base`` among
            them.
        target: what the models were taught.
        judge: reads the attributes.
        at_base: the same for the base texts (:func:`~spf_lite.evaluation.portraits.sampled_for_both_texts`): the reader
            can switch the text.
        numbers: of the N people, if these are not the first ones.

    Raises:
        ValueError: for an unknown target, or not as many numbers as people.
    """
    numbers = range(len(portraits["base"])) if numbers is None else numbers
    if len(numbers) != len(portraits["base"]):
        raise ValueError(f"{len(numbers)} numbers for {len(portraits['base'])} people")
    people, leave_out = chosen_portraits(target, numbers), unnamed_attributes(target, FORMS["full"])
    asked = _views(portraits, target, judge, [complete(person.with_targets(target), leave_out) for person in people])
    plain = [describe(person, leave_out) for person in people]
    unasked = None if at_base is None else _views(at_base, target, judge, plain)
    return [
        {
            "target": get_target(target).text,
            "seed": FIRST_SEED + numbers[i],
            **view,
            **({} if unasked is None else {"base_text": unasked[i]}),
        }
        for i, view in enumerate(asked)
    ]


def _views(
    portraits: Mapping[str, Sequence[Image.Image]], target: str, judge: Judge, prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """What belongs to one text, for each person."""
    tuned = [name for name in portraits if name != "base"]
    changes = unrelated_changes(portraits, target, judge)
    shows = {name: judge(row).shows(target) for name, row in portraits.items()}
    return [
        {
            "prompt": prompt,
            "images": {name: row[i] for name, row in portraits.items()},
            "changes": {name: in_words(changes[name][i]) for name in tuned},
            "shows": {name: shows[name][i] for name in portraits},
        }
        for i, prompt in enumerate(prompts)
    ]
