"""What is known before any step, and how it is put together: items, drawn once, and batches of them.

An item is a portrait of the custom set, which shows the target, or a portrait that the reference model draws for itself
before stage 2, which does not. Both come with their texts, encoded; nothing frozen is computed twice. Items stay in
main memory; a batch is brought to the model's device.

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.control_map import phrase_matrix
from spf_lite.data import CustomSet
from spf_lite.pipelines import Backbone, encode_images, encode_text, sample, to_tensor
from spf_lite.prompts import PromptPair, encode_pair


@dataclass(frozen=True)
class Item:
    """One portrait with its texts.

    Attributes:
        latents: x0, scaled, (C, h, w).
        pair: base and complete text, tokenised and aligned.
        base: ``encoder_hidden_states`` of the base text, (L, width).
        complete: of the complete text, (L, width).
        distances: CLIP distances of the phrases to the target, (P,).
        portrait_features: CLIP embedding of the portrait; only the enhancement loss uses it, (width,).
        target_features: CLIP embedding of the target text, (width,).
        region: where the target may act, given by hand, (1, h, w) in [0, 1]; None: not known.
        is_reference: drawn by the reference model, without the target.
    """

    latents: Tensor
    pair: PromptPair
    base: Tensor
    complete: Tensor
    distances: Tensor
    portrait_features: Tensor
    target_features: Tensor
    region: Tensor | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Batch:
    """B items.

    Attributes:
        latents: x0, scaled, (B, C, h, w).
        base: ``encoder_hidden_states`` of the base texts, (B, L, width).
        complete: of the complete texts; of the base texts again for reconstruction items.
        phrases: token averages per phrase, (B, P, L), see :func:`spf_lite.control_map.phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        base_tokens: indices of aligned tokens in the base text, (B, K).
        complete_tokens: of their counterparts in the complete text, (B, K).
        aligned: (B, K), 1 for real pairs, 0 for filling.
        is_reference: (B,), True for portraits without the target: no denoising and no enhancement loss on them.
        is_reconstruction: (B,), True for reference items whose response path is fed the base text: M = 0 there.
        target: token average of the target in the complete text, (B, L); zeros for reconstruction items.
        portrait_features: CLIP embeddings of the custom portraits, (B, width); only for the enhancement loss.
        target_features: CLIP embedding of the target text, (B, width).
        region: where the target may act, given by hand, (B, 1, h, w); 1 everywhere where it is not known.
    """

    latents: Tensor
    base: Tensor
    complete: Tensor
    phrases: Tensor
    distances: Tensor
    base_tokens: Tensor
    complete_tokens: Tensor
    aligned: Tensor
    is_reference: Tensor
    is_reconstruction: Tensor
    target: Tensor
    portrait_features: Tensor
    target_features: Tensor
    region: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def collate(items: Sequence[Item], reconstruction: Sequence[bool]) -> Batch:
    """Put items together, filling up phrases and alignments to the longest of the batch.

    Args:
        items: B of them.
        reconstruction: which of them are fed the base text on both paths.
    """
    pairs = [item.pair for item in items]
    length = len(pairs[0].base_ids)
    phrases = phrase_matrix(pairs, length)
    distances = torch.zeros(phrases.shape[:2])
    width = max(len(pair.alignment) for pair in pairs)
    indices = torch.zeros(2, len(items), width, dtype=torch.long)
    aligned = torch.zeros(len(items), width)
    target = torch.zeros(len(items), length)
    for row, (item, again) in enumerate(zip(items, reconstruction, strict=True)):
        distances[row, : len(item.distances)] = item.distances
        matched = [(i, i) for i, _ in item.pair.alignment] if again else item.pair.alignment
        indices[:, row, : len(matched)] = torch.tensor(matched).T
        aligned[row, : len(matched)] = 1
        if not again:
            target[row, item.pair.target.start : item.pair.target.stop] = 1 / len(item.pair.target.tokens)
    everywhere = torch.ones(1, *items[0].latents.shape[-2:])
    return Batch(
        latents=torch.stack([item.latents for item in items]),
        base=torch.stack([item.base for item in items]),
        complete=torch.stack(
            [item.base if again else item.complete for item, again in zip(items, reconstruction, strict=True)]
        ),
        phrases=phrases,
        distances=distances,
        base_tokens=indices[0],
        complete_tokens=indices[1],
        aligned=aligned,
        is_reference=torch.tensor([item.is_reference for item in items]),
        is_reconstruction=torch.tensor(list(reconstruction)),
        target=target,
        portrait_features=torch.stack([item.portrait_features for item in items]),
        target_features=torch.stack([item.target_features for item in items]),
        region=torch.stack([everywhere if item.region is None else item.region for item in items]),
    )


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
            drafts = [backbone.draft(part.to(pipe.device)).float().clamp(0, 1) for part in latents.split(8)]
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
        drawn: Tensor = sample(
            backbone.pipe,
            prompts,
            seeds=[seed * 100_003 + i for i in range(count)],
            guidance_scale=backbone.facts.guidance_scale,
            output_type="latent",
        )
    return drawn.cpu()


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
