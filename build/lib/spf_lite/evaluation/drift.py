r"""Drift by word: which words of the base model paint something else since it was tuned.

Every base text is painted from the same noise before and after. How far a portrait moved is credited to each word of
its text:

.. math:: \mathrm{drift}_w = \operatorname*{mean}_{i : w \in b_i} m_i - \operatorname*{mean}_{i : w \notin b_i} m_i

with the base texts :math:`b_i` and the movements :math:`m_i`, such as the reconstruction error. A word that drifts
moves the portraits it stands in more than others move. All words may have moved alike: that is the mean movement, and
no word's drift. Words that often stand together share what one of them does, so a hundred texts say more than thirty.

Kin to DriftScope (arXiv 2607.00183), which asks the same of concepts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from spf_lite.evaluation.report import PollutionReport
from spf_lite.evaluation.statistics import Estimate, holm
from spf_lite.tiny_world.custom_sets import evaluation_portraits, unnamed_attributes
from spf_lite.tiny_world.portraits import describe

#: A word is compared if at least this many texts have it, and as many do not.
FEWEST = 3
#: Movements that differ by less are alike: what is left is rounding.
_ROUNDING = 1e-12


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"[\w-]+", text.lower()))


def drift_by_word(texts: Sequence[str], moved: ArrayLike, level: float = 0.95) -> dict[str, Estimate]:
    """How much more the portraits of texts with a word moved than the others, for each word; largest first.

    Intervals and p-values are Student's (1908), over the texts. Of many words some seem to drift by chance:
    :func:`spf_lite.evaluation.statistics.holm` says which ones stand.

    Args:
        texts: N.
        moved: how far each portrait moved, (N,), or (S, N) after S training runs, whose mean is taken.
        level: of the intervals.

    Returns:
        word to its drift. Words of fewer than :data:`FEWEST` texts, or missing in fewer, are left out.

    Raises:
        ValueError: if there are not as many movements as texts, or some are not finite.
    """
    table = np.atleast_2d(np.asarray(moved, dtype=np.float64))
    if table.ndim != 2 or table.shape[1] != len(texts):
        raise ValueError(f"movements of shape {np.shape(moved)} for {len(texts)} texts: each text needs one")
    if not np.isfinite(table).all():
        raise ValueError("some movements are not finite")
    distance = table.mean(axis=0)
    words = [words_of(text) for text in texts]
    found = {}
    for word in sorted(set().union(*words)):
        has = np.array([word in own for own in words])
        if min(has.sum(), (~has).sum()) >= FEWEST:
            found[word] = _difference(distance[has], distance[~has], level)
    return dict(sorted(found.items(), key=lambda pair: -pair[1].mean))


def _difference(first: NDArray[np.float64], second: NDArray[np.float64], level: float) -> Estimate:
    """The difference of two means, with Student's interval and p-value: one variance, because few texts have a word."""
    gap, count = float(first.mean() - second.mean()), len(first) + len(second)
    if np.ptp(np.concatenate([first, second])) <= _ROUNDING:
        return Estimate(0.0, 0.0, 0.0, count, 0.0, count - 2, 1.0)
    squares = float(sum(np.square(side - side.mean()).sum() for side in (first, second)))
    error = float(np.sqrt(squares / (count - 2) * (1 / len(first) + 1 / len(second))))
    reach = float(stdtrit(count - 2, (1 + level) / 2)) * error
    p_value = float(2 * stdtr(count - 2, -abs(gap) / error)) if error else 0.0
    return Estimate(gap, gap - reach, gap + reach, count, error, count - 2, p_value)


def drifted_words(reports: Sequence[PollutionReport]) -> dict[str, Estimate]:
    """Drift by word of the base texts that reports were measured on, by their reconstruction errors.

    Args:
        reports: of one target on the same prompts, one for each training run.

    Raises:
        ValueError: if there are none, they are of different targets, or their reconstruction was not measured.
    """
    if len(targets := {report.target for report in reports}) != 1:
        raise ValueError(f"reports of one target are compared, not of {', '.join(sorted(targets)) or 'none'}")
    moved = [np.array(report.values.get("reconstruction", []), dtype=np.float64) for report in reports]
    if not all(len(row) for row in moved):
        raise ValueError("drift by word needs the measure 'reconstruction', which is taken for full texts")
    (target,) = targets
    people = evaluation_portraits(target, len(moved[0]))
    leave_out = unnamed_attributes(target, "named")
    return drift_by_word([describe(person, leave_out) for person in people], np.stack(moved))


def in_words(drift: Mapping[str, Estimate], most: int = 5) -> str:
    """The words that drifted most, as text. A star: it stands against chance (Holm 1979, over all words).

    Args:
        drift: from :func:`drift_by_word`, largest first.
        most: how many words.
    """
    stands = holm(drift)
    first = list(drift.items())[:most]
    named = [f"{word} {estimate.mean:+.3f}{' *' if word in stands else ''}" for word, estimate in first]
    return ", ".join(named) or "too few prompts to say"
