r"""Measures of a tuned model that compare pictures, parts or embeddings. Each returns one number per portrait, (N,).

- :math:`x_i`: the base model's portrait for the base text;
- :math:`y_i`: the tuned model's for the complete text, from the same noise;
- :math:`r_i`: the tuned model's for the base text, from the same noise;
- :math:`R_i`: the region that the target needs on this person, known from the tiny world
  (:func:`spf_lite.tiny_world.rendering.true_region`).

Pictures are float arrays (N, H, W, 3) in [0, 1], regions boolean arrays (N, H, W).

In the book: :doc:`/05-measuring`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
#: Smaller differences of a colour channel count as none: sampling and decoding are no more exact than that.
JITTER = 8 / 255


def to_array(images: list[Image.Image]) -> Floats:
    """RGB images of one size to (N, H, W, 3) in [0, 1]."""
    return np.stack([np.asarray(image.convert("RGB"), dtype=np.float64) for image in images]) / 255


def change(before: Floats, after: Floats) -> Floats:
    """Absolute difference without jitter, mean over the colour channels, (N, H, W).

    Raises:
        ValueError: if the arrays differ in shape.
    """
    if before.shape != after.shape:
        raise ValueError(f"pictures before are {before.shape}, after {after.shape}: they are compared in pairs")
    difference = np.abs(before - after)
    mean: Floats = np.where(difference > JITTER, difference, 0.0).mean(axis=-1)
    return mean


def similarity(first: Floats, second: Floats) -> Floats:
    r"""Cosine of two embeddings of each portrait, :math:`\cos(f_i, g_i)`, (N,).

    - CLIP-T: CLIP's embeddings of :math:`y_i` and of the target text. Is the target there?
    - CLIP-I: CLIP's embeddings of :math:`x_i` and :math:`y_i`. Is it the same picture? It falls with the wanted change,
      too.
    - Identity: the judge's embeddings of :math:`x_i` and :math:`y_i`. Is it the same person?

    Range -1 to 1, higher is better. Blind to whatever the embedding was not trained to tell apart.

    Args:
        first: (N, D).
        second: (N, D), or (1, D) for one text.
    """
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    product: Floats = (first * second).sum(axis=-1) / np.maximum(norms, 1e-12)
    return product


def leakage(before: Floats, after: Floats, region: NDArray[np.bool_]) -> Floats:
    r"""Share of the change that lies outside the region that the target needs.

    .. math:: \mathrm{leak}_i = \frac{\sum_{p \notin R_i} |x_i - y_i|_p}{\sum_p |x_i - y_i|_p}

    Range 0 to 1, lower is better; 0 also for a portrait that did not change at all. Blind to the size of the change,
    and to what happens inside the region. Not a number (nan) where the target needs the whole picture (a style).
    """
    difference = change(before, after)
    whole = difference.sum(axis=(1, 2))
    outside = (difference * ~region).sum(axis=(1, 2))
    share = np.divide(outside, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.where(region.all(axis=(1, 2)), np.nan, share)


def over_alignment(before: Floats, after: Floats, needed: Floats, region: NDArray[np.bool_]) -> Floats:
    r"""Share of the change that the target needs and that did not happen.

    .. math:: \mathrm{over}_i = 1 - \min\Big(1,\ \frac{\sum_{p \in R_i} |x_i - y_i|_p}{\sum_{p \in R_i} n_{i,p}}\Big)

    with :math:`n_i` the change that the target makes to a rendered portrait of this person. Range 0 to 1, lower is
    better; 1 for a portrait that stayed as it was, 0 if at least as much changed as the target needs. Blind to what the
    change is: damage counts like the target.

    Args:
        before: x.
        after: y.
        needed: :func:`change` between renders without and with the target, (N, H, W).
        region: R.
    """
    done = (change(before, after) * region).sum(axis=(1, 2))
    asked = (needed * region).sum(axis=(1, 2))
    share: Floats = 1 - np.minimum(1.0, done / np.maximum(asked, 1e-12))
    return share


def reconstruction_error(before: Floats, again: Floats) -> Floats:
    r"""Difference between the tuned and the base model's portraits where the prompt does not name the target.

    .. math:: \mathrm{rec}_i = \frac{1}{|P|} \sum_p |x_i - r_i|_p

    with :math:`P` all pixels. Range 0 to 1, lower is better; 0 for a model that gives the original portrait back. Blind
    to what has changed.
    """
    error: Floats = change(before, again).mean(axis=(1, 2))
    return error


def segmentation_consistency(
    before: NDArray[np.uint8], after: NDArray[np.uint8], region: NDArray[np.bool_], parts: int
) -> Floats:
    r"""Agreement of the part masks outside the region, as mean intersection over union.

    .. math:: \mathrm{seg}_i = \frac{1}{|K_i|} \sum_{k \in K_i} \frac{|S_k(x_i) \cap S_k(y_i) \setminus R_i|}
        {|(S_k(x_i) \cup S_k(y_i)) \setminus R_i|}

    with :math:`S_k` the pixels of part k and :math:`K_i` the parts that either picture has outside of :math:`R_i`.
    Range 0 to 1, higher is better. Blind to colours. Not a number (nan) where nothing lies outside.

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
