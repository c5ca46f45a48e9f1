"""How well a map finds the region that a target changes.

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def map_auc(values: ArrayLike, region: ArrayLike) -> float:
    """AUC of a map: how often a position inside a region has a higher value than one outside. Ties count half.

    It is the statistic of Mann and Whitney (1947), divided by the number of pairs: 1 is perfect, 0.5 is chance.

    Args:
        values: of the map, of any shape.
        region: of the same shape; positions above 0 are inside.

    Returns:
        in [0, 1]; NaN if nothing is inside or nothing is outside.

    Raises:
        ValueError: if both have different shapes.
    """
    map_, inside = np.asarray(values, dtype=float), np.asarray(region) > 0
    if map_.shape != inside.shape:
        raise ValueError(f"a map of shape {map_.shape} for a region of shape {inside.shape}")
    within, beyond = int(inside.sum()), int((~inside).sum())
    if not (within and beyond):
        return float("nan")
    ranks = rankdata(map_, axis=None).reshape(map_.shape)
    return float((ranks[inside].sum() - within * (within + 1) / 2) / (within * beyond))
