r"""The loss terms, one small function each: unreduced (one number per portrait), targets detached by the caller's hand.

Notation: :math:`M` control map, :math:`A` attention maps, :math:`Q` features, subscripts *res* (tuned path, complete
text) and *ref* (frozen path, base text). Source of all but the last two: SPF-Portrait (arXiv 2504.00396), "dual-path"
stage.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def denoising(prediction: Tensor, target: Tensor, allowed: Tensor | None = None, elsewhere: float = 1.0) -> Tensor:
    r""":math:`L_\mathrm{denoise} = \| \epsilon_\mathrm{res} - \epsilon \|^2`, mean over all but the batch: (B,).

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


def purecc(response: Tensor, base: Tensor, concept: Tensor) -> Tensor:
    r"""PureCC (arXiv 2603.07561): the response must be the base's prediction plus what the target adds, (B,).

    .. math::
        L = \| v_\mathrm{res} - (v_\mathrm{base} + \lambda R_\mathrm{target}) \|^2, \qquad
        \lambda = \frac{\langle v_\mathrm{res} - v_\mathrm{base}, R_\mathrm{target} \rangle}{\| R_\mathrm{target} \|^2}

    The goal, :math:`\lambda` included, is detached, as the paper's equations have it (its released code does not).

    Args:
        response: prediction for the complete text, (B, C, h, w).
        base: the untouched model's prediction for the base text; no gradient.
        concept: :math:`R_\mathrm{target} = v_1(\mathrm{target}) - v_1(\emptyset)` of the frozen extractor; no gradient.
    """
    moved, towards = (response - base).detach().flatten(1), concept.detach().flatten(1)
    share = (moved * towards).sum(dim=1) / towards.square().sum(dim=1).clamp(min=1e-12)
    goal = base.detach() + share[:, None, None, None] * concept.detach()
    return (response - goal).square().flatten(1).mean(dim=1)


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
