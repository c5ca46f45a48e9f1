r"""The loss terms of both stages and the objective that they add up to.

===================================================  ========================  ================
term                                                 function                  source
===================================================  ========================  ================
:math:`L`, the total objective                       :func:`objective`         SPF-Portrait
:math:`L_\mathrm{denoise}`, also prior preservation  :func:`denoising`         DDPM; DreamBooth
:math:`L_\mathrm{text}`, text-consistent             :func:`text_consistent`   SPF-Portrait
:math:`L_\mathrm{fine}`, fine-grained                :func:`fine_grained`      SPF-Portrait
:math:`L_\mathrm{enh}`, response enhancement         :func:`enhancement`       SPF-Portrait
:math:`L_\mathrm{out}`, also reconstruction          :func:`output_alignment`  ours
===================================================  ========================  ================

PureCC's term is :func:`spf_lite.method.purecc.purecc_loss`. Each function gives one number per item, unreduced; only
:func:`objective` takes means over items. Under autocast, call them within
:func:`spf_lite.models.precision.full_precision`, as :mod:`spf_lite.method.dual_path` does.

Notation: :math:`M` control map, :math:`A` attention maps, :math:`F` features; subscript *res* for the response path
(tuned model, complete text) and *ref* for the reference path (original model, base text). A squared norm is the mean of
the squares.

Source: SPF-Portrait (arXiv 2504.00396), dual-path stage; DreamBooth (Ruiz et al. 2023, arXiv 2208.12242).

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
        values: one number per item, (B,).
        applies: which items the term applies to, (B,) of booleans; the others do not count.
    """

    values: Tensor
    applies: Tensor

    def mean(self) -> Tensor:
        """Mean over the items that the term applies to; 0 if there are none."""
        return (self.values * self.applies).sum() / self.applies.sum().clamp(min=1)


def objective(terms: Mapping[str, Term], factors: Mapping[str, float], counts: Mapping[str, int]) -> Tensor:
    r"""The total objective, a scalar: stage 1 with the denoising term alone, stage 2 with every term that has a weight.

    .. math:: L = \sum_k w_k\, s_k\, L_k, \qquad L_k = \frac1{N_k} \sum_{i \in I_k} \ell_{k,i}

    The denoising term is one of them, with its weight. Here :math:`\ell_{k,i}` is term k of item i, :math:`I_k` the
    :math:`N_k` items that term k applies to, :math:`w_k` its weight, and :math:`s_k` the scale that brings it to the
    size of the denoising term.

    Source: SPF-Portrait (arXiv 2504.00396), total objective of the dual-path stage. The scales are ours.

    Args:
        terms: loss terms by name, of the whole batch or of a part of it.
        factors: :math:`w_k s_k` by name.
        counts: :math:`N_k` by name, over the whole batch, so that the objectives of its parts add up.
    """
    total = next(iter(terms.values())).values.new_zeros(())
    for name, term in terms.items():
        share = (term.values * term.applies).sum() / counts[name]
        total = total + factors[name] * share
    return total


def denoising(prediction: Tensor, target: Tensor, allowed: Tensor | None = None, elsewhere: float = 1.0) -> Tensor:
    r"""The denoising loss of diffusion training, as a mean over the latent: (B,).

    .. math:: L_\mathrm{denoise} = \| \epsilon_\mathrm{res} - \epsilon \|^2

    With a map it is a weighted mean: weight 1 inside the map, ``elsewhere`` outside (ours; weight 0 is "masked
    training" in OneTrainer). On portraits of the reference model with the base text it is the prior-preservation loss.

    Args:
        prediction: predicted noise or velocity, (B, C, h, w).
        target: true noise or velocity, (B, C, h, w); no gradient.
        allowed: M, (B, 1, h, w); None: no map.
        elsewhere: weight outside the map, in [0, 1].
    """
    error = (prediction - target).square()
    if allowed is None or elsewhere == 1:
        return error.flatten(1).mean(dim=1)
    weight = allowed + (1 - allowed) * elsewhere
    # An almost empty map must not magnify the little that is left: divide by a hundredth of the image at least.
    return (error * weight).flatten(1).mean(dim=1) / weight.flatten(1).mean(dim=1).clamp(min=0.01)


def outside(control: Tensor, size: tuple[int, int]) -> Tensor:
    """1 - M, resized to a layer's feature map, positions row by row: (B, 1, h, w) to (B, height * width)."""
    if control.shape[-2:] != size:
        control = F.interpolate(control, size, mode="bilinear", antialias=True, align_corners=False)
    return 1 - control.flatten(1)


def text_consistent(response: Tensor, reference: Tensor, keep: Tensor, aligned: Tensor) -> Tensor:
    r"""Attention maps of base and PAD tokens must agree outside the control map; one layer: (B,).

    .. math::
        L_\mathrm{text} =
        \big\| (1 - M) \odot (A_\mathrm{res}[\mathrm{base, PAD}] - A_\mathrm{ref}[\mathrm{base, PAD}]) \big\|^2

    Args:
        response: maps of K tokens of the complete text on the response path, (B, heads, positions, K).
        reference: maps of the same tokens in the base text on the reference path, same shape; no gradient.
        keep: 1 - M, (B, positions), from :func:`outside`.
        aligned: 1 for real pairs of tokens, 0 for padding to the longest item of the batch, (B, K).
    """
    # The sum over tokens comes first: it leaves fewer numbers to weight.
    apart = (response - reference.detach()).square() @ aligned[:, None, :, None]  # (B, heads, positions, 1)
    count = aligned.sum(dim=1).clamp(min=1) * response.shape[1] * response.shape[2]
    return (keep.square()[:, None, :, None] * apart).flatten(1).sum(dim=1) / count


def fine_grained(response: Tensor, reference: Tensor, keep: Tensor) -> Tensor:
    r"""Features must agree outside the control map; one layer: (B,).

    .. math:: L_\mathrm{fine} = \big\| (1 - M) \odot (F_\mathrm{res} - F_\mathrm{ref}) \big\|^2

    The paper's features are the queries Q. The recipes align what enters the layer instead
    (``fine_features="inputs"``): the queries are its projection.

    Args:
        response: features of the response path, (B, positions, channels).
        reference: features of the reference path, (B, positions, channels); no gradient.
        keep: 1 - M, (B, positions), from :func:`outside`.
    """
    apart = (response - reference.detach()).square().mean(dim=2)  # (B, positions)
    return (keep.square() * apart).mean(dim=1)


def enhancement(predicted: Tensor, portrait: Tensor, target: Tensor) -> Tensor:
    r"""Response enhancement, (B,): prediction and real portrait differ from the target text in the same direction.

    .. math:: L_\mathrm{enh} = 1 - \cos\big( I(\hat x_0) - T,\ I(x_0) - T \big)

    CLIP embeddings of images and of texts lie in different regions of the space. Pulling :math:`I(\hat x_0)` to
    :math:`T` itself would pull it out of the region of images; difference vectors avoid that.

    In the book: :doc:`/08-response-enhancement`.

    Args:
        predicted: :math:`I(\hat x_0)`, CLIP embeddings of one-step predictions, of unit length, (B, width).
        portrait: :math:`I(x_0)`, of training portraits with the target, (B, width); no gradient.
        target: :math:`T`, of the target text, (width,) or (B, width); no gradient.
    """
    return 1 - F.cosine_similarity(predicted - target.detach(), (portrait - target).detach(), dim=-1)


def enclosed_places(control: Tensor) -> Tensor:
    """Places that a map encloses, such as the mouth within a beard: (B, 1, h, w), 1 there and 0 elsewhere.

    They are what a morphological closing with a square of 3 x 3 places adds to the map.

    Args:
        control: M, (B, 1, h, w).
    """
    grown = F.max_pool2d(F.pad(control, (1, 1, 1, 1)), kernel_size=3, stride=1, padding=1)
    closed = -F.max_pool2d(-grown, kernel_size=3, stride=1)
    return (closed - control).clamp(min=0)


def output_alignment(
    response: Tensor,
    reference: Tensor,
    control: Tensor,
    enclosed: float = 1.0,
    acting: Tensor | None = None,
    earlier: float = 1.0,
) -> Tensor:
    r"""The predictions must agree outside the control map, (B,). Ours, not the paper's.

    .. math::
        L_\mathrm{out} =
        \big\| \Omega^{1/2} \odot (1 - M) \odot (\epsilon_\mathrm{res} - \epsilon_\mathrm{ref}) \big\|^2

    Equal attention maps and queries do not make outputs equal: values and output projections stay free. With M = 0 and
    the base text on both paths this is the reconstruction term.

    :math:`\Omega` is 1, and may be larger at places that the map encloses (:func:`enclosed_places`). A mouth within a
    beard is four places of 256: it would drown in a mean over all, though the target presses on it from every side.
    Where targets of earlier adapters act, :math:`\Omega` may be larger, too: both factors are multiplied.

    Args:
        response: prediction of the response path, (B, C, h, w).
        reference: prediction of the reference path, (B, C, h, w); no gradient.
        control: M, (B, 1, h, w).
        enclosed: :math:`\Omega` at places that the map encloses; 1: like all others.
        acting: where targets of earlier adapters act, (B, 1, h, w) of zeros and ones; None: nowhere.
        earlier: :math:`\Omega` at these places; 1: like all others.
    """
    apart = ((1 - control) * (response - reference.detach())) ** 2
    if enclosed != 1:
        apart = apart * (1 + (enclosed - 1) * enclosed_places(control))
    if acting is not None and earlier != 1:
        apart = apart * (1 + (earlier - 1) * acting)
    return apart.flatten(1).mean(dim=1)
