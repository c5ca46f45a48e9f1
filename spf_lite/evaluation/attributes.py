"""Measures of a tuned model that count attributes: which of them changed besides the target, and towards what?

Preservation compares two portraits from the same noise: the base model's for the *base text* (before) and the tuned
model's for the *complete text* (after). Both were read by the judge, one dictionary from attribute to value for each
portrait.

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spf_lite.evaluation.judge import HEADS, head_of
from spf_lite.tiny_world.portraits import get_target


def unrelated_attributes(target: str) -> list[str]:
    """The attributes that a target must not change: all but its own and those that it covers or changes by itself.

    Raises:
        ValueError: for an unknown target.
    """
    spec = get_target(target)
    return [head for head in HEADS if head != head_of(target) and head not in spec.affects]


def flips(before: Mapping[str, str], after: Mapping[str, str], target: str) -> dict[str, tuple[str, str]]:
    """The unrelated attributes that changed in one portrait: attribute to (value before, value after)."""
    return {name: (before[name], after[name]) for name in unrelated_attributes(target) if before[name] != after[name]}


def flip_rates(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], target: str
) -> NDArray[np.float64]:
    r"""Flip rate of each of N pairs of portraits, (N,): the share of unrelated attributes that changed.

    .. math:: \mathrm{flip}_i = \frac{1}{|U|} \sum_{u \in U} [\, a_u(\text{before}_i) \ne a_u(\text{after}_i) \,]

    with :math:`a_u` the value of attribute u and :math:`U` the :func:`unrelated_attributes`. Range 0 to 1, lower is
    better; 0 also for a model that changes nothing at all, the target included. Blind to changes that the judge has no
    class for (the shape of a nose) and to changes within one class (a darker blue).

    Raises:
        ValueError: if there are not as many judgements after as before, or for an unknown target.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} judgements before, {len(after)} after: they are compared in pairs")
    number = len(unrelated_attributes(target))
    return np.array([len(flips(a, b, target)) / number for a, b in zip(before, after, strict=True)])


def flips_per_attribute(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], target: str
) -> dict[str, float]:
    """Unrelated attribute to the share of pairs in which it changed."""
    return {
        name: float(np.mean([a[name] != b[name] for a, b in zip(before, after, strict=True)]))
        for name in unrelated_attributes(target)
    }


def bias_pickup(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], spurious: Mapping[str, str]
) -> dict[str, float]:
    r"""How far portraits moved to what the custom set has in common besides the target.

    .. math:: \mathrm{bias}_u
        = \frac{1}{N} \sum_i [\, a_u(\text{after}_i) = v_u \,] - [\, a_u(\text{before}_i) = v_u \,]

    with :math:`v_u` the set's value of the spurious attribute u. Range -1 to 1, lower is better.

    Args:
        before: judgements of N portraits.
        after: same of the tuned model's.
        spurious: attribute to the set's value (:func:`spf_lite.tiny_world.custom_sets.spurious_attributes`).
    """
    return {
        name: float(np.mean([b[name] == value for b in after]) - np.mean([a[name] == value for a in before]))
        for name, value in spurious.items()
    }
