"""Pre-encoded examples: portraits as latents, texts as embeddings, and their CLIP distances.

Everything that frozen models compute is computed once: for the custom set before the first step, for the reference
portraits, which the reference model samples, before stage 2. Every text and every size is checked before the
first portrait is encoded; the trainer checks the reference texts before that.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.data.batch import Item, by_size
from spf_lite.data.latent_cache import LatentCache
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.sets.geometry import Size, buckets, crop_to, fit, nearest_bucket
from spf_lite.data.texts import ReferenceTexts, embeddings, phrase_distances, text_pair
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_images, to_tensor
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.sampling import sample
from spf_lite.models.running.shared_work import shared_out

logger = logging.getLogger(__name__)

#: How many small portraits pass through the autoencoder at a time.
CHUNK = 8
#: How many small reference portraits are sampled at a time.
SAMPLED = 32


def model_buckets(backbone: Backbone) -> list[Size]:
    """The latent sizes that a model is trained on, the square first (:func:`spf_lite.data.sets.geometry.buckets`)."""
    return buckets(backbone.side, backbone.architecture.size_multiple(backbone.network.config))


@torch.no_grad()
def preview_features(backbone: Backbone, latents: Tensor) -> Tensor:
    """CLIP embeddings of portraits (B, C, h, w), decoded as one-step predictions are: both have its artefacts."""
    features = []
    for part in latents.split(at_a_time(latents.shape[-2:], CHUNK)):
        preview = backbone.decode_preview(part.to(backbone.pipe.device))
        features.append(backbone.clip.image_features(preview.float().clamp(0, 1)).cpu())
    return torch.cat(features)


def custom_items(
    backbone: Backbone, custom_set: CustomSet, enhance: bool = False, cache: LatentCache | None = None
) -> list[Item]:
    """The portraits of a custom set, encoded.

    Each portrait is cropped to the nearest of the model's buckets and resized to it; a square one is only resized.

    Args:
        backbone: whose autoencoder, text encoder and CLIP are used.
        custom_set: the portraits and their texts.
        enhance: whether the enhancement loss will need their CLIP embeddings.
        cache: keeps latents on disk; None: every portrait is encoded.

    Raises:
        PromptError: if a text of the set does not fit the model.
    """
    pipe = backbone.pipe
    pairs = [
        text_pair(backbone, e.base_text, e.target_text, replaces=e.replaces, phrases=e.phrases, where=e.where)
        for e in custom_set
    ]
    target_text = custom_set[0].target_text
    choices = model_buckets(backbone)
    sizes = [nearest_bucket(example.image, choices) for example in custom_set]
    pixels = [(height * pipe.vae_scale_factor, width * pipe.vae_scale_factor) for height, width in sizes]
    _report(custom_set, pixels)

    features: dict[int, Tensor] = {}

    def encoded(part: list[int]) -> Tensor:
        pictures = [fit(custom_set[i].image, pixels[i]) for i in part]

        def encode() -> Tensor:
            return encode_images(pipe, to_tensor(pictures)).cpu()

        latents = encode() if cache is None else cache.latents(pictures, encode)
        if enhance:
            features.update(zip(part, preview_features(backbone, latents), strict=True))
        return latents

    latents = _by_group(sizes, encoded)
    target = backbone.clip.text_features([target_text])[0].cpu()
    portraits = [features.get(i, target) for i in range(len(latents))]
    regions = [
        None if e.mask is None else region_of(to_tensor([crop_to(e.mask, size)]), size)
        for e, size in zip(custom_set, sizes, strict=True)
    ]
    return [
        Item(latent, pair, base, complete, phrase_distances(backbone, pair), portrait, target, region)
        for latent, pair, (base, complete), portrait, region in zip(
            latents, pairs, embeddings(backbone, pairs), portraits, regions, strict=True
        )
    ]


def _by_group(
    sizes: Sequence[Size], compute: Callable[[list[int]], Tensor], most: int = CHUNK, shared: bool = False
) -> list[Tensor]:
    """One row per portrait: ``compute`` gets the indices of some portraits of one size, at most ``most`` small ones.

    If ``shared``, the processes of a run share the parts (:mod:`spf_lite.models.running.shared_work`).
    """
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    parts = []
    for size, indices in groups.items():
        count = at_a_time(size, most)
        parts += [indices[start : start + count] for start in range(0, len(indices), count)]
    results = shared_out(parts, compute) if shared else [compute(part) for part in parts]
    rows: dict[int, Tensor] = {}
    for part, result in zip(parts, results, strict=True):
        rows |= dict(zip(part, result, strict=True))
    return [rows[index] for index in range(len(sizes))]


def _report(custom_set: CustomSet, pixels: Sequence[Size]) -> None:
    """Log which buckets there are, and how many portraits had to be enlarged."""
    small = sum(
        min(e.image.height / height, e.image.width / width) < 1
        for e, (height, width) in zip(custom_set, pixels, strict=True)
    )
    if small:
        logger.warning(
            "%d of %d portraits have fewer pixels than the model generates: they are enlarged and stay blurred",
            small,
            len(custom_set),
        )
    if len(set(pixels)) > 1:
        counts = Counter(pixels).items()
        logger.info("buckets: %s", ", ".join(f"{width}x{height}: {count}" for (height, width), count in counts))


def region_of(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (1, 3, H, W) at the size of the latents, (1, h, w): 1 where any of its pixels there is above a half."""
    return (F.adaptive_max_pool2d(mask[:, :1], tuple(size))[0] > 0.5).float()


def reference_latents(
    backbone: Backbone, texts: ReferenceTexts, count: int, seed: int, custom: Sequence[Item] = ()
) -> list[Tensor]:
    """Reference portraits for varied base texts, as scaled latents, (C, h, w) each.

    Args:
        backbone: what is being trained on it is switched off meanwhile.
        texts: base texts, taken in turn; :func:`reference_items` takes the same.
        count: how many portraits; but one of every size at least.
        seed: of their noise.
        custom: items of the custom set, whose sizes they have, in proportion; empty: the model's own size.
    """
    own = model_buckets(backbone)[0]
    sizes = reference_sizes(custom, count) or [own] * count
    factor = backbone.pipe.vae_scale_factor

    def sampled(part: list[int]) -> Tensor:
        height, width = sizes[part[0]]
        return sample(
            backbone,
            [texts[i % len(texts)][0] for i in part],
            seeds=[seed * 100_003 + i for i in part],
            height=None if (height, width) == own else height * factor,
            width=None if (height, width) == own else width * factor,
            output_type="latent",
        ).cpu()

    with backbone.reference():
        return _by_group(sizes, sampled, SAMPLED, shared=True)


def reference_sizes(custom: Sequence[Item], count: int) -> list[Size]:
    """Latent sizes for ``count`` reference portraits, in the proportions of the custom set, at least one of each."""
    if not custom or count < 1:
        return []
    shares = {size: count * len(indices) / len(custom) for size, indices in by_size(custom).items()}
    wanted = dict.fromkeys(shares, 1)
    while sum(wanted.values()) < count:
        wanted[max(shares, key=lambda size: shares[size] - wanted[size])] += 1
    return [size for size, number in wanted.items() for _ in range(number)]


def reference_items(
    backbone: Backbone, texts: ReferenceTexts, latents: Sequence[Tensor] | Tensor, like: Item
) -> list[Item]:
    """The items of reference portraits.

    Args:
        backbone: whose text encoder and CLIP are used.
        texts: as they were given to :func:`reference_latents`.
        latents: what it returned, or latents of one size, (N, C, h, w).
        like: an item of the custom set, whose target they share.

    Raises:
        PromptError: if a text does not fit the model.
    """
    chosen = [texts[i % len(texts)] for i in range(len(latents))]
    pairs = [text_pair(backbone, text, like.pair.target_text, replaces) for text, replaces in chosen]
    features = like.target_features
    return [
        Item(latent, pair, base, complete, phrase_distances(backbone, pair), features, features, is_reference=True)
        for latent, pair, (base, complete) in zip(latents, pairs, embeddings(backbone, pairs), strict=True)
    ]
