"""Measures of a fine-tune: is the target there, and what else changed?

Preservation compares the tuned model's portrait for the *complete text* with the base model's portrait for the
*base text*, same seed. Responsiveness asks whether the tuned model's portrait shows the target. Every number comes
with a bootstrap interval over its independent units (prompt and seed).

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spf_lite.evaluation.judge import HEADS, head_of
from spf_lite.tiny_world.portraits import get_target


def unrelated_attributes(target: str) -> list[str]:
    """The judge's heads that a target has no business with: all but its own and those it changes by its nature."""
    spec = get_target(target)
    return [head for head in HEADS if head != head_of(target) and head not in spec.affects]


def flips(before: Mapping[str, str], after: Mapping[str, str], target: str) -> dict[str, tuple[str, str]]:
    """The unrelated attributes that differ between two judgements: attribute to (value before, value after)."""
    return {name: (before[name], after[name]) for name in unrelated_attributes(target) if before[name] != after[name]}


def flip_rates(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], target: str
) -> NDArray[np.float64]:
    r"""Flip rate of each pair of portraits, (N,): pollution, counted.

    .. math:: \mathrm{flip}_i = \frac{1}{|U|} \sum_{u \in U} [\, a_u(\text{before}_i) \ne a_u(\text{after}_i) \,]

    with :math:`U` the :func:`unrelated_attributes`. Range 0 to 1, lower is better; 0 for a model that changed nothing
    at all, the target included. Blind to changes that the judge has no word for (the shape of a nose) and to changes
    within one value (a darker blue).
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} judgements before, {len(after)} after: they are compared in pairs")
    number = len(unrelated_attributes(target))
    return np.array([len(flips(a, b, target)) / number for a, b in zip(before, after, strict=True)])


def flips_per_attribute(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], target: str
) -> dict[str, float]:
    """Share of pairs in which each unrelated attribute changed."""
    return {
        name: float(np.mean([a[name] != b[name] for a, b in zip(before, after, strict=True)]))
        for name in unrelated_attributes(target)
    }


def bias_pickup(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], accidents: Mapping[str, str]
) -> dict[str, float]:
    """How far each accidental attribute moved towards the custom set's value: the gain in its share, -1 to 1."""
    return {
        name: float(np.mean([b[name] == value for b in after]) - np.mean([a[name] == value for a in before]))
        for name, value in accidents.items()
    }
