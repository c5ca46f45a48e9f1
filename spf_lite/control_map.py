r"""The Semantic-Aware Fine Control Map (SFCM): where, and how strongly, the target may change the picture.

.. math:: M = \mathrm{clamp}\Big(D - w \sum_p D_\mathrm{CLIP}(p)\, A_p,\ 0,\ 1\Big)

:math:`D` is the difference between the noise that both paths predict: where the target acts, plus spill. :math:`A_p`
is the attention map of phrase p of the base text, and :math:`D_\mathrm{CLIP}(p) = 1 - \cos` its CLIP distance to the
target: a phrase that has nothing to do with the target is subtracted strongly, a related one weakly.

Source: SPF-Portrait (arXiv 2504.00396), "Semantic-Aware Fine Control Map". What the public material leaves open is an
option of :class:`ControlMapOptions`.

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.attention import LayerRecord, mean_maps
from spf_lite.prompts import PromptPair


@dataclass(frozen=True)
class ControlMapOptions:
    """The choices that the paper leaves open.

    Attributes:
        weight: w, the weight of the subtraction.
        smoothing: side of the box that D is averaged over before anything else (1: none). A single step's difference
            is grainy.
        rescale: stretch M to [0, 1] afterwards, per portrait; without it M is a few hundredths for most targets.
        threshold: values of M below it become 0 (before ``softness`` is applied).
        softness: 0 makes M a hard mask at ``threshold``; 1 leaves it as soft as it is.
        subtraction: ``sum`` over the phrases, as the paper's formula stands, or ``mean``: that divided by the sum of
            the distances. Each phrase map is stretched to [0, 1] and about a third on average, so the sum over a few
            phrases exceeds any D, and the map is black.
    """

    weight: float = 1.0
    smoothing: int = 3
    rescale: bool = True
    threshold: float = 0.0
    softness: float = 1.0
    subtraction: str = "mean"

    def __post_init__(self) -> None:
        if self.smoothing < 1 or self.smoothing % 2 == 0:
            raise ValueError(f"smoothing={self.smoothing}: expected an odd number of latent pixels, 1 or more")
        if self.subtraction not in ("mean", "sum"):
            raise ValueError(f"subtraction={self.subtraction!r}: expected mean or sum")
        if not 0 <= self.threshold < 1 or not 0 <= self.softness <= 1 or self.weight < 0:
            raise ValueError(
                f"threshold={self.threshold} must be in [0, 1), softness={self.softness} in [0, 1] and "
                f"weight={self.weight} not negative"
            )


@dataclass(frozen=True)
class ControlMap:
    """A control map and what it was made of, per portrait; all detached.

    Attributes:
        noise_difference: D, (B, 1, h, w) in [0, 1].
        phrase_maps: A_p, (B, P, h, w) in [0, 1]; zeros for phrases that a portrait with fewer of them does not have.
        distances: D_CLIP(p), (B, P); zero for those.
        map: M, (B, 1, h, w) in [0, 1]: 1 where the target may act, 0 where everything must stay.
    """

    noise_difference: Tensor
    phrase_maps: Tensor
    distances: Tensor
    map: Tensor


def min_max(maps: Tensor) -> Tensor:
    """Stretch every map (the last two dimensions) to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    return torch.where(spread > 1e-8, (maps - low) / spread.clamp(min=1e-8), torch.zeros_like(maps))


def noise_difference(response: Tensor, reference: Tensor, smoothing: int = 3) -> Tensor:
    """D: absolute difference of both predictions, mean over channels, smoothed, min-max per portrait.

    Args:
        response: prediction of the tuned path, (B, C, h, w).
        reference: prediction of the frozen path, same shape. Noise or velocity: they differ by a factor that depends on
            the timestep alone, which the min-max takes out.
        smoothing: side of the averaging box.

    Returns:
        (B, 1, h, w) in [0, 1].
    """
    difference = (response - reference).abs().mean(dim=1, keepdim=True)
    if smoothing > 1:
        padded = F.pad(difference, [smoothing // 2] * 4, mode="replicate")
        difference = F.avg_pool2d(padded, smoothing, stride=1)
    return min_max(difference)


def combine(difference: Tensor, phrase_maps: Tensor, distances: Tensor, options: ControlMapOptions) -> Tensor:
    """The formula itself: M from D, A and the distances.

    Args:
        difference: D, (B, 1, h, w).
        phrase_maps: A_p, (B, P, h, w).
        distances: D_CLIP(p), (B, P).
        options: weight, rescaling, threshold and softness.

    Returns:
        M, (B, 1, h, w) in [0, 1].
    """
    protected = (distances[:, :, None, None] * phrase_maps).sum(dim=1, keepdim=True)
    if options.subtraction == "mean":
        protected = protected / distances.sum(dim=1)[:, None, None, None].clamp(min=1e-8)
    control = (difference - options.weight * protected).clamp(0, 1)
    if options.rescale:
        control = min_max(control)
    hard = (control > options.threshold).to(control.dtype)
    soft = control * hard
    return options.softness * soft + (1 - options.softness) * hard


def phrase_matrix(pairs: Sequence[PromptPair], length: int) -> Tensor:
    """(B, P, length): row p averages the tokens of phrase p; rows of zeros fill up portraits with fewer phrases."""
    most = max((len(pair.phrases) for pair in pairs), default=0)
    matrix = torch.zeros(len(pairs), most, length)
    for b, pair in enumerate(pairs):
        for p, phrase in enumerate(pair.phrases):
            matrix[b, p, phrase.start : phrase.stop] = 1 / len(phrase.tokens)
    return matrix


@torch.no_grad()
def control_map(
    response: Tensor,
    reference: Tensor,
    reference_layers: dict[str, LayerRecord],
    phrases: Tensor,
    distances: Tensor,
    options: ControlMapOptions | None = None,
) -> ControlMap:
    """The control map of a batch.

    Args:
        response: prediction of the tuned path, (B, C, h, w).
        reference: prediction of the frozen path, same shape.
        reference_layers: cross-attention of the frozen path, from :func:`spf_lite.attention.record`.
        phrases: which tokens make up which phrase, (B, P, tokens), from :func:`phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        options: what the paper leaves open.
    """
    options = options or ControlMapOptions()
    tokens = mean_maps(reference_layers)  # (B, tokens, height, width)
    maps = torch.einsum("bpt,bthw->bphw", phrases, tokens)
    if maps.shape[-2:] != response.shape[-2:]:
        maps = F.interpolate(maps, response.shape[-2:], mode="bilinear", align_corners=False)
    maps = min_max(maps)
    difference = noise_difference(response, reference, options.smoothing)
    return ControlMap(difference, maps, distances, combine(difference, maps, distances, options))
