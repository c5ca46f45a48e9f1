r"""Measures on pictures that need neither a judge nor a network, one number for each portrait, (N,).

Pictures are float arrays (N, H, W, 3) in [0, 1], regions boolean arrays (N, H, W). As in
:mod:`spf_lite.evaluation.measures.pictures`, whose measures serve here as well, :math:`x_i` is the portrait before and
:math:`y_i` the one after, and a change of a colour channel by no more than
:data:`spf_lite.evaluation.measures.pictures.JITTER` counts as none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import sobel

from spf_lite.evaluation.measures.pictures import JITTER, Floats, change

#: Sobel magnitudes up to this count as no edge. A step by the jitter has it.
FAINT = 4 * JITTER


def pixel_change(before: Floats, after: Floats) -> Floats:
    r"""Mean difference of the pixels.

    .. math:: \mathrm{pix}_i = \frac{1}{|P|} \sum_p |x_i - y_i|_p

    with :math:`P` all pixels. Range 0 to 1, lower is less change; 0 for equal pictures. Blind to what has changed.
    """
    mean: Floats = change(before, after).mean(axis=(1, 2))
    return mean


def change_outside(before: Floats, after: Floats, region: NDArray[np.bool_]) -> Floats:
    r"""How much of the :func:`pixel_change` happened outside a region.

    .. math:: \mathrm{out}_i = \frac{1}{|P|} \sum_{p \notin R_i} |x_i - y_i|_p

    Range 0 to 1, lower is better. Unlike leakage, a share, it says how large the change is.
    """
    mean: Floats = (change(before, after) * ~region).mean(axis=(1, 2))
    return mean


def edges(pictures: Floats) -> Floats:
    """Magnitude of the Sobel gradient of the mean of the colour channels, without faint edges, (N, H, W).

    A step from black to white has 4.
    """
    # One by one: scipy's filter smooths along every other axis, the portraits' as well.
    magnitude = np.stack(
        [np.hypot(*(sobel(gray, axis, mode="nearest") for axis in (0, 1))) for gray in pictures.mean(-1)]
    )
    return np.where(magnitude > FAINT, magnitude, 0.0)


def edge_change(before: Floats, after: Floats) -> Floats:
    r"""Difference of structure: how far the edges of two pictures disagree.

    .. math:: \mathrm{edge}_i = \frac{\sum_p |S(x_i) - S(y_i)|_p}{\sum_p S(x_i)_p + S(y_i)_p}

    with :math:`S` the :func:`edges`. Range 0 to 1, lower is less change; 0 for the same edges, 1 for edges of which
    none coincide. 0 as well if neither picture has any. Blind to colours that change without an edge.

    Raises:
        ValueError: if the arrays differ in shape.
    """
    if before.shape != after.shape:
        raise ValueError(f"pictures before are {before.shape}, after {after.shape}: they are compared in pairs")
    first, second = edges(before), edges(after)
    whole = (first + second).sum(axis=(1, 2))
    apart = np.abs(first - second).sum(axis=(1, 2))
    share: Floats = np.divide(apart, whole, out=np.zeros_like(whole), where=whole > 0)
    return share
