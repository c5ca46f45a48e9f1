r"""Measures that look at the pictures themselves. Each returns one number per portrait, (N,).

:math:`x_i` is the base model's portrait for the base text, :math:`y_i` the tuned model's for the complete text and
:math:`r_i` the tuned model's for the base text, all from the same noise; :math:`R_i` is the region that the target
needs on this person, known from the tiny world (:func:`spf_lite.tiny_world.rendering.true_region`).
Pictures are float arrays (N, H, W, 3) in [0, 1], regions boolean arrays (N, H, W).

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
#: Differences of a colour channel up to this count as none: what sampling and decoding jitter by.
JITTER = 8 / 255


def to_array(images: list[Image.Image]) -> Floats:
    """RGB images of one size to (N, H, W, 3) in [0, 1]."""
    return np.stack([np.asarray(image.convert("RGB"), dtype=np.float64) for image in images]) / 255


def change(before: Floats, after: Floats) -> Floats:
    """Absolute difference, mean over colour channels, jitter taken out, (N, H, W)."""
    if before.shape != after.shape:
        raise ValueError(f"pictures before are {before.shape}, after {after.shape}: they are compared in pairs")
    difference = np.abs(before - after)
    return np.where(difference > JITTER, difference, 0.0).mean(axis=-1)


def similarity(first: Floats, second: Floats) -> Floats:
    r"""Cosine of two rows of embeddings, :math:`\cos(f_i, g_i)`, (N,).

    CLIP-T with CLIP's embeddings of :math:`y_i` and of the target text: is the target there? CLIP-I with those of
    :math:`x_i` and :math:`y_i`, identity with the judge's: is it the same picture, the same person? Range -1 to 1,
    higher is better. Blind to whatever the embedding was not trained to tell apart; CLIP-I also falls for the change
    that was asked for.
    """
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    product: Floats = (first * second).sum(axis=-1) / np.maximum(norms, 1e-12)
    return product


def leakage(before: Floats, after: Floats, region: NDArray[np.bool_]) -> Floats:
    r"""Share of the change that lies outside the region which the target needs.

    .. math:: \mathrm{leak}_i = \frac{\sum_{p \notin R_i} |x_i - y_i|_p}{\sum_p |x_i - y_i|_p}

    Range 0 to 1, lower is better; 0 for a portrait that did not change at all. Blind to how large the change is, and to
    what happens inside the region. Not a number where the target needs the whole picture (a style).
    """
    difference = change(before, after)
    whole = difference.sum(axis=(1, 2))
    outside = (difference * ~region).sum(axis=(1, 2))
    share = np.divide(outside, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.where(region.all(axis=(1, 2)), np.nan, share)


def over_alignment(before: Floats, after: Floats, needed: Floats, region: NDArray[np.bool_]) -> Floats:
    r"""How much of the change that the target needs has not happened.

    .. math:: \mathrm{over}_i = 1 - \min\Big(1,\ \frac{\sum_{p \in R_i} |x_i - y_i|_p}{\sum_{p \in R_i} n_{i,p}}\Big)

    with :math:`n_i` the change that the target makes to a true portrait of this person. Range 0 to 1: 1 for a portrait
    that stayed as it was, 0 where as much has changed as the target needs; lower is better. Blind to what the change
    is: damage counts like the target.

    Args:
        before: x.
        after: y.
        needed: :func:`change` between true portraits without and with the target, (N, H, W).
        region: R.
    """
    done = (change(before, after) * region).sum(axis=(1, 2))
    asked = (needed * region).sum(axis=(1, 2))
    share: Floats = 1 - np.minimum(1.0, done / np.maximum(asked, 1e-12))
    return share


def reconstruction_error(before: Floats, again: Floats) -> Floats:
    r"""How far the tuned model is from the base model where the target is *not* asked for.

    .. math:: \mathrm{rec}_i = \frac{1}{|P|} \sum_p |x_i - r_i|_p

    Range 0 to 1, lower is better; 0 for a model that gives the original portrait back. Blind to what has changed.
    """
    return change(before, again).mean(axis=(1, 2))


def segmentation_consistency(
    before: NDArray[np.uint8], after: NDArray[np.uint8], region: NDArray[np.bool_], parts: int
) -> Floats:
    r"""Agreement of the part masks outside the region, as mean intersection over union.

    .. math:: \mathrm{seg}_i = \frac{1}{|K_i|} \sum_{k \in K_i} \frac{|S_k(x_i) \cap S_k(y_i) \setminus R_i|}
        {|(S_k(x_i) \cup S_k(y_i)) \setminus R_i|}

    with :math:`S_k` the pixels of part k and :math:`K_i` the parts that either picture has outside of :math:`R_i`.
    Range 0 to 1, higher is better. Blind to colours. Not a number where nothing lies outside.

    Args:
        before: part of each pixel of x, (N, h, w).
        after: same of y.
        region: R at the same size.
        parts: how many parts there are.
    """
    scores = np.full(len(before), np.nan)
    for i, (a, b, inside) in enumerate(zip(before, after, region, strict=True)):
        a, b = a[~inside], b[~inside]
        unions = [(k, ((a == k) | (b == k)).sum()) for k in range(parts)]
        shares = [((a == k) & (b == k)).sum() / union for k, union in unions if union]
        if shares:
            scores[i] = np.mean(shares)
    return scores
