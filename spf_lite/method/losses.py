r"""The loss terms of both stages and the objective that they add up to.

Each term is a small function and unreduced: one number per portrait. Only :func:`objective` takes means. Notation:
:math:`M` control map, :math:`A` attention maps, :math:`Q` features; subscript *res* for the response path (tuned model,
complete text) and *ref* for the reference path (frozen model, base text).

Source of :func:`text_consistent`, :func:`fine_grained` and :func:`enhancement`: SPF-Portrait (arXiv 2504.00396),
dual-path stage. :func:`output_alignment` is ours.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Term:
    """One loss term of a batch.

    Attributes:
        values: one number per item, (B,); zero where it does not apply.
        applies: which items it is about, (B,).
    """

    values: Tensor
    applies: Tensor

    def mean(self) -> Tensor:
        """Over the items that it applies to; 0 when there are none."""
        return (self.values * self.applies).sum() / self.applies.sum().clamp(min=1)


def objective(terms: Mapping[str, Term], factors: Mapping[str, float], counts: Mapping[str, int]) -> Tensor:
    r"""The total objective, a scalar: stage 1 with the denoising term alone, stage 2 with every term that has a weight.

    .. math::
        L = L_\mathrm{denoise} + \sum_k w_k\, s_k\, \frac1{N_k} \sum_{i \in I_k} \ell_{k,i}

    with :math:`\ell_{k,i}` term k of item i, :math:`I_k` the :math:`N_k` items that the term applies to, :math:`w_k`
    its weight and :math:`s_k` the scale that brings it to the denoising term's size.

    Source: SPF-Portrait (arXiv 2504.00396), total objective of the dual-path stage.

    Args:
        terms: of this part of the batch.
        factors: :math:`w_k s_k` by name.
        counts: :math:`N_k` by name, over the whole batch: a batch may be computed in parts.
    """
    total = next(iter(terms.values())).values.new_zeros(())
    for name, term in terms.items():
        share = (term.values * term.applies).sum() / counts[name]
        total = total + factors[name] * share
    return total


def denoising(prediction: Tensor, target: Tensor, allowed: Tensor | None = None, elsewhere: float = 1.0) -> Tensor:
    r""":math:`L_\mathrm{denoise} = \| \epsilon_\mathrm{res} - \epsilon \|^2`, one mean per item: (B,).

    With a map it can be a weighted mean: places inside count 1, places outside ``elsewhere`` (ours; OneTrainer and
    others call 0 "masked training").

    Args:
        prediction: noise or velocity, (B, C, h, w).
        target: what it should have been; no gradient.
        allowed: M, (B, 1, h, w); None: everywhere.
        elsewhere: weight outside of it.
    """
    error = (prediction - target).square()
    if allowed is None or elsewhere == 1:
        return error.flatten(1).mean(dim=1)
    weight = allowed + (1 - allowed) * elsewhere
    # An empty map must not blow up what little is left: no mean is taken over less than a hundredth of the picture.
    return (error * weight).flatten(1).mean(dim=1) / weight.flatten(1).mean(dim=1).clamp(min=0.01)


def outside(control: Tensor, size: tuple[int, int]) -> Tensor:
    """1 - M at a layer's own size, positions row by row: (B, 1, h, w) to (B, height * width)."""
    if control.shape[-2:] != size:
        control = F.interpolate(control, size, mode="bilinear", antialias=True, align_corners=False)
    return 1 - control.flatten(1)


def text_consistent(response: Tensor, reference: Tensor, keep: Tensor, aligned: Tensor) -> Tensor:
    r"""Attention of base and PAD tokens must agree outside the control map, for one layer: (B,).

    .. math::
        L_\mathrm{text} =
        \big\| (1 - M) \odot (A_\mathrm{res}[\mathrm{base, PAD}] - A_\mathrm{ref}[\mathrm{base, PAD}]) \big\|^2

    Args:
        response: (B, heads, positions, K), maps of the tuned path for K aligned tokens.
        reference: (B, heads, positions, K), maps of the frozen path for their counterparts; no gradient.
        keep: 1 - M, (B, positions), from :func:`outside`.
        aligned: (B, K), 1 where the k-th pair exists, 0 where it only fills up the batch.
    """
    # Weighted after the sum over the tokens, when there are fewer numbers.
    apart = (response - reference.detach()).square() @ aligned[:, None, :, None]  # (B, heads, positions, 1)
    count = aligned.sum(dim=1).clamp(min=1) * response.shape[1] * response.shape[2]
    return (keep.square()[:, None, :, None] * apart).flatten(1).sum(dim=1) / count


def fine_grained(response: Tensor, reference: Tensor, keep: Tensor) -> Tensor:
    r"""Features must agree outside the control map, for one layer: (B,).

    .. math:: L_\mathrm{fine} = \big\| (1 - M) \odot (Q_\mathrm{res} - Q_\mathrm{ref}) \big\|^2

    Args:
        response: (B, positions, channels), features of the tuned path.
        reference: same of the frozen path; no gradient.
        keep: 1 - M, (B, positions).
    """
    apart = (response - reference.detach()).square().mean(dim=2)  # (B, positions)
    return (keep.square() * apart).mean(dim=1)


def enhancement(predicted: Tensor, portrait: Tensor, target: Tensor) -> Tensor:
    r"""Response enhancement: the prediction must stand to the target's text as a real portrait of it does, (B,).

    In the book: :doc:`/08-response-enhancement`.

    .. math:: L_\mathrm{enh} = 1 - \cos\big( I(\hat x_0) - T,\ I(x_0) - T \big)

    Difference vectors, because picture and text embeddings live in different places: pulling :math:`I(\hat x_0)` to
    :math:`T` itself would pull it out of the pictures.

    Args:
        predicted: CLIP embeddings of the one-step predictions, (B, width).
        portrait: of training portraits that show the target, (B, width); no gradient.
        target: of the target text, (width,) or (B, width); no gradient.
    """
    return 1 - F.cosine_similarity(predicted - target.detach(), (portrait - target).detach(), dim=-1)


def output_alignment(response: Tensor, reference: Tensor, control: Tensor) -> Tensor:
    r"""The predictions themselves must agree outside the control map, (B,). Ours, not the paper's.

    .. math:: L_\mathrm{out} = \big\| (1 - M) \odot (\epsilon_\mathrm{res} - \epsilon_\mathrm{ref}) \big\|^2

    Attention maps and queries do not pin the output down: values and output projections stay free. With M = 0 and the
    base text on both paths this is the reconstruction term.

    Args:
        response: (B, C, h, w), of the tuned path.
        reference: same of the frozen path; no gradient.
        control: M, (B, 1, h, w).
    """
    return (((1 - control) * (response - reference.detach())) ** 2).flatten(1).mean(dim=1)
