"""What is known before any step, and how it is put together: items, drawn once, and batches of them.

An item is a portrait of the custom set, which shows the target, or a portrait that the reference model draws for itself
before stage 2, which does not. Both come with their texts, encoded; nothing frozen is computed twice. Items stay in
main memory; a batch is brought to the model's device.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.data.batch import Item
from spf_lite.data.custom_set import CustomSet
from spf_lite.data.prompts import PromptPair, encode_pair
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_images, encode_text, to_tensor
from spf_lite.models.sampling import sample


def _texts(backbone: Backbone, pairs: Sequence[PromptPair]) -> list[tuple[Tensor, Tensor]]:
    """Both texts of each pair through the text encoder, each different text once."""
    wanted = {tuple(ids.tolist()): ids for pair in pairs for ids in (pair.base_ids, pair.complete_ids)}
    encoded: dict[tuple[int, ...], Tensor] = {}
    for part in torch.stack(list(wanted.values())).split(32):
        rows = encode_text(backbone.pipe, part).cpu()
        encoded |= {tuple(ids.tolist()): row for ids, row in zip(part, rows, strict=True)}
    return [tuple(encoded[tuple(ids.tolist())] for ids in (pair.base_ids, pair.complete_ids)) for pair in pairs]  # type: ignore[misc]


def _distances(backbone: Backbone, pair: PromptPair) -> Tensor:
    return backbone.clip.phrase_distances([phrase.text for phrase in pair.phrases], pair.target_text).cpu()


def custom_items(backbone: Backbone, custom_set: CustomSet, enhance: bool = False) -> list[Item]:
    """The portraits of a custom set, encoded.

    Args:
        backbone: whose autoencoder, text encoder and CLIP are used.
        custom_set: the portraits and their texts.
        enhance: whether the enhancement loss will need their CLIP embeddings.

    Raises:
        PromptError: if a text does not fit the model.
    """
    pipe = backbone.pipe
    pairs = [
        encode_pair(pipe.tokenizer, e.base_text, e.target_text, replaces=e.replaces, phrases=e.phrases)
        for e in custom_set
    ]
    images = to_tensor([example.image for example in custom_set], pipe.unet.config.sample_size * 8).to(pipe.device)
    latents = torch.cat([encode_images(pipe, part).cpu() for part in images.split(8)])
    target = backbone.clip.text_features([custom_set[0].target_text])[0].cpu()
    portraits = target.expand(len(images), -1)
    if enhance:
        with torch.no_grad():
            # Drawn by the decoder that will draw the predictions: only what differs in the picture shall count.
            drafts = [backbone.decode_preview(part.to(pipe.device)).float().clamp(0, 1) for part in latents.split(8)]
            portraits = torch.cat([backbone.clip.image_features(draft).cpu() for draft in drafts])
    regions = [None if e.mask is None else region_of(to_tensor([e.mask]), latents.shape[-2:]) for e in custom_set]
    return [
        Item(latent, pair, base, complete, _distances(backbone, pair), portrait, target, region)
        for latent, pair, (base, complete), portrait, region in zip(
            latents, pairs, _texts(backbone, pairs), portraits, regions, strict=True
        )
    ]


def region_of(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of pixels, (1, 3, H, W), at the size of the latents, (1, h, w): 1 where any pixel beneath is marked."""
    return (F.adaptive_max_pool2d(mask[:, :1], tuple(size))[0] > 0.5).float()


ReferenceTexts = Sequence[tuple[str, str | None]]


def reference_latents(backbone: Backbone, texts: ReferenceTexts, count: int, seed: int) -> Tensor:
    """Portraits that the reference draws for varied base texts, as scaled latents, (count, C, h, w).

    Args:
        backbone: whatever is being trained on it is taken back for the time.
        texts: pairs of a base text and the phrase that the target replaces; taken in turn.
        count: how many portraits.
        seed: of their noise.
    """
    prompts = [texts[i % len(texts)][0] for i in range(count)]
    with backbone.reference():
        seeds = [seed * 100_003 + i for i in range(count)]
        return sample(backbone, prompts, seeds=seeds, output_type="latent").cpu()


def reference_items(backbone: Backbone, texts: ReferenceTexts, latents: Tensor, like: Item) -> list[Item]:
    """The reference's portraits as items.

    Args:
        backbone: whose text encoder and CLIP are used.
        texts: as they were given to :func:`reference_latents`.
        latents: what it returned.
        like: an item of the custom set, whose target they share.
    """
    chosen = [texts[i % len(texts)] for i in range(len(latents))]
    target_text = like.pair.target_text
    pairs = [encode_pair(backbone.pipe.tokenizer, text, target_text, replaces=replaces) for text, replaces in chosen]
    features = like.target_features
    return [
        Item(latent, pair, base, complete, _distances(backbone, pair), features, features, is_reference=True)
        for latent, pair, (base, complete) in zip(latents, pairs, _texts(backbone, pairs), strict=True)
    ]
