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

from spf_lite.evaluation.judge import head_of
from spf_lite.tiny_world.portraits import ATTRIBUTES, get_target


def unrelated_attributes(target: str) -> list[str]:
    """The attributes that can flip and that a target must not change.

    They are those of :data:`~spf_lite.tiny_world.portraits.ATTRIBUTES`, less the target's own and those that it covers
    or changes by its nature. What the judge reads besides, whether there is a beard, a hat or a sketch, does not count:
    a model without these targets never shows them, and attributes that never flip would lower every flip rate.

    Raises:
        ValueError: for an unknown target.
    """
    spec = get_target(target)
    return [name for name in ATTRIBUTES if name != head_of(target) and name not in spec.affects]


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

    Args:
        before: of the base model's portraits for the base text.
        after: of the tuned model's, from the same noise: for the complete text; or, as *flip rate at base text*, for
            the base text, where nothing should change.
        target: name of the target.

    Raises:
        ValueError: if there are not as many judgements after as before, or for an unknown target.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} judgements before, {len(after)} after: they are compared in pairs")
    number = len(unrelated_attributes(target))
    return np.array([len(flips(a, b, target)) / number for a, b in zip(before, after, strict=True)])


def pure(before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], target: str) -> NDArray[np.float64]:
    r"""Whether each of N portraits shows the target and is otherwise as it was, (N,): 1 or 0.

    .. math:: \mathrm{pure}_i = [\, a_\tau(\text{after}_i) = \tau \,] \; [\, \mathrm{flip}_i = 0 \,]

    with :math:`a_\tau` the value of the attribute that has the target :math:`\tau` among its classes, and
    :math:`\mathrm{flip}_i` of :func:`flip_rates`. The mean is the share of pure portraits: range 0 to 1, higher is
    better. A model that never shows the target gets 0, and so does one that always changes something else. Blind to
    what the flip rate is blind to.

    Raises:
        ValueError: if there are not as many judgements after as before, or for an unknown target.
    """
    head = head_of(target)
    shown = np.array([verdict[head] == target for verdict in after], dtype=np.bool_)
    unchanged: NDArray[np.bool_] = flip_rates(before, after, target) == 0
    return (shown & unchanged).astype(np.float64)


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
