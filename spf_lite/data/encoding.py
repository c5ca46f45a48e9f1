"""Pre-encoded examples: portraits as latents, texts as embeddings, and their CLIP distances.

Everything that frozen models compute is computed once: for the custom set before the first step, for the reference
portraits, which the reference model samples, before stage 2. Every text and every size, those of reference texts
included, is checked before the first portrait is encoded.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.data.batch import Item, by_size
from spf_lite.data.captions import occurrences
from spf_lite.data.custom_set import CustomSet
from spf_lite.data.geometry import Size, buckets, crop_to, fit, nearest_bucket
from spf_lite.data.prompts import PromptPair, encode_pair, split_phrases
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_images, encode_text, to_tensor
from spf_lite.models.sampling import sample
from spf_lite.models.tokenizer import PromptError, tokenize

logger = logging.getLogger(__name__)

#: How many portraits pass through the autoencoder at a time.
CHUNK = 8
#: Pairs of a base text and the phrase in it that the target replaces, if it replaces one.
ReferenceTexts = Sequence[tuple[str, str | None]]


def model_buckets(backbone: Backbone) -> list[Size]:
    """The latent sizes that a model is trained on, the square first (:func:`spf_lite.data.geometry.buckets`)."""
    config = backbone.pipe.unet.config
    return buckets(int(np.max(config.sample_size)), 2 ** (len(config.block_out_channels) - 1))


def _pair(
    backbone: Backbone,
    base_text: str,
    target_text: str,
    replaces: str | None = None,
    phrases: Sequence[str] | None = None,
    where: str = "",
) -> PromptPair:
    """:func:`encode_pair`, whose errors name the file and the line."""
    try:
        return encode_pair(backbone.pipe.tokenizer, base_text, target_text, replaces=replaces, phrases=phrases)
    except PromptError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from None


def check_texts(backbone: Backbone, texts: ReferenceTexts, target_text: str, places: Sequence[str] = ()) -> None:
    """Check reference texts before any training: long after it, they are sampled for.

    Args:
        backbone: whose tokenizer they must fit.
        texts: the reference texts.
        target_text: the target.
        places: file and line of each; empty: they come from no file.

    Raises:
        PromptError: if a text is empty, too long or holds the target, or a phrase does not stand in it.
    """
    for number, (text, replaces) in enumerate(texts):
        where = places[number] if places else f"reference text {number + 1}"
        _pair(backbone, text, target_text, replaces, where=where)
        if occurrences(text, target_text):
            raise PromptError(f"{where}: {text!r} already holds the target {target_text!r}")


def encode_texts(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """``encoder_hidden_states`` of N texts, (N, L, width), in main memory; equal texts are encoded once.

    Raises:
        PromptTooLongError: if a text has more tokens than the text encoder takes.
    """
    distinct = list(dict.fromkeys(texts))
    ids = torch.tensor([tokenize(backbone.pipe.tokenizer, text).ids for text in distinct])
    rows = torch.cat([encode_text(backbone.pipe, part).cpu() for part in ids.split(32)])
    number = {text: k for k, text in enumerate(distinct)}
    return rows[[number[text] for text in texts]]


def empty_text(backbone: Backbone) -> Tensor:
    """``encoder_hidden_states`` of the empty text, (L, width): what guidance leads away from."""
    return encode_texts(backbone, [""])[0]


def with_text_forms(backbone: Backbone, items: Sequence[Item], seed: int) -> list[Item]:
    """Every item twice: with its own texts, and with a base text that names some of its phrases only.

    The first phrase ("a person") is always kept, every other with probability one half. What is replaced may be among
    those that are not named: then the target is added at the end.

    Args:
        backbone: whose text encoder and CLIP are used.
        items: N of them.
        seed: of the choice.

    Returns:
        2 N items, each beside its other form.
    """
    generator = torch.Generator().manual_seed(seed)
    shorter = []
    for item in items:
        phrases = split_phrases(item.pair.base_text)
        kept = (torch.rand(len(phrases), generator=generator) < 0.5).tolist()
        shorter.append(", ".join(phrase for k, phrase in enumerate(phrases) if k == 0 or kept[k]))
    forms = [replace(item, is_shortened=True) for item in retold(backbone, items, shorter)]
    return [form for both in zip(items, forms, strict=True) for form in both]


def retold(backbone: Backbone, items: Sequence[Item], base_texts: Sequence[str]) -> list[Item]:
    """The same portraits with other base texts.

    Args:
        backbone: whose text encoder and CLIP are used.
        items: N of them.
        base_texts: N. If the phrase that the target replaces does not stand in one, the target is added at its end.

    Raises:
        PromptError: if a text does not fit the model.
    """
    pairs = [
        _pair(backbone, text, item.pair.target_text, kept_phrase(item.pair.replaces, text))
        for item, text in zip(items, base_texts, strict=True)
    ]
    return [
        replace(item, pair=pair, base=base, complete=complete, distances=_distances(backbone, pair))
        for item, pair, (base, complete) in zip(items, pairs, _texts(backbone, pairs), strict=True)
    ]


def kept_phrase(phrase: str | None, text: str) -> str | None:
    """A phrase, if it stands between the commas of a text; else None."""
    return phrase if phrase in split_phrases(text) else None


def _texts(backbone: Backbone, pairs: Sequence[PromptPair]) -> list[tuple[Tensor, Tensor]]:
    """``encoder_hidden_states`` of base and complete text of each pair, (L, width); equal texts are encoded once."""
    wanted = {tuple(ids.tolist()): ids for pair in pairs for ids in (pair.base_ids, pair.complete_ids)}
    encoded: dict[tuple[int, ...], Tensor] = {}
    for part in torch.stack(list(wanted.values())).split(32):
        rows = encode_text(backbone.pipe, part).cpu()
        encoded |= {tuple(ids.tolist()): row for ids, row in zip(part, rows, strict=True)}
    return [tuple(encoded[tuple(ids.tolist())] for ids in (pair.base_ids, pair.complete_ids)) for pair in pairs]  # type: ignore[misc]


@torch.no_grad()
def preview_features(backbone: Backbone, latents: Tensor) -> Tensor:
    """CLIP embeddings of portraits (B, C, h, w), decoded as one-step predictions are: both have its artefacts."""
    preview = backbone.decode_preview(latents.to(backbone.pipe.device))
    return backbone.clip.image_features(preview.float().clamp(0, 1)).cpu()


def _distances(backbone: Backbone, pair: PromptPair) -> Tensor:
    return backbone.clip.phrase_distances([phrase.text for phrase in pair.phrases], pair.target_text).cpu()


def custom_items(backbone: Backbone, custom_set: CustomSet, enhance: bool = False) -> list[Item]:
    """The portraits of a custom set, encoded.

    Each portrait is cropped to the nearest of the model's buckets and resized to it; a square one is only resized.

    Args:
        backbone: whose autoencoder, text encoder and CLIP are used.
        custom_set: the portraits and their texts.
        enhance: whether the enhancement loss will need their CLIP embeddings.

    Raises:
        PromptError: if a text of the set, its reference texts included, does not fit the model.
    """
    pipe = backbone.pipe
    pairs = [
        _pair(backbone, e.base_text, e.target_text, replaces=e.replaces, phrases=e.phrases, where=e.where)
        for e in custom_set
    ]
    target_text = custom_set[0].target_text
    check_texts(backbone, custom_set.references, target_text, custom_set.reference_places)
    choices = model_buckets(backbone)
    sizes = [nearest_bucket(example.image, choices) for example in custom_set]
    pixels = [(height * pipe.vae_scale_factor, width * pipe.vae_scale_factor) for height, width in sizes]
    _report(custom_set, pixels)

    features: dict[int, Tensor] = {}

    def encoded(part: list[int]) -> Tensor:
        latents = encode_images(pipe, to_tensor([fit(custom_set[i].image, pixels[i]) for i in part])).cpu()
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
        Item(latent, pair, base, complete, _distances(backbone, pair), portrait, target, region)
        for latent, pair, (base, complete), portrait, region in zip(
            latents, pairs, _texts(backbone, pairs), portraits, regions, strict=True
        )
    ]


def _by_group(sizes: Sequence[Size], compute: Callable[[list[int]], Tensor], most: int = CHUNK) -> list[Tensor]:
    """One row per portrait: ``compute`` gets the indices of at most ``most`` portraits of one size."""
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    rows: dict[int, Tensor] = {}
    for indices in groups.values():
        for start in range(0, len(indices), most):
            part = indices[start : start + most]
            rows |= dict(zip(part, compute(part), strict=True))
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
        return _by_group(sizes, sampled, len(sizes))


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
    pairs = [_pair(backbone, text, like.pair.target_text, replaces) for text, replaces in chosen]
    features = like.target_features
    return [
        Item(latent, pair, base, complete, _distances(backbone, pair), features, features, is_reference=True)
        for latent, pair, (base, complete) in zip(latents, pairs, _texts(backbone, pairs), strict=True)
    ]
