"""The data of the explorers, computed from a model: maps recorded in one forward pass at each timestep.

:func:`control_map_items` is for :class:`~spf_lite.widgets.ControlMapExplorer`, :func:`attention_items` for
:class:`~spf_lite.widgets.AttentionExplorer`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spf_lite.data.batch import Item, collate
from spf_lite.data.texts import encode_texts
from spf_lite.method.control_map import control_map
from spf_lite.method.paths import both_paths, reference_path
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord
from spf_lite.models.codec import decode_latents
from spf_lite.models.diffusion import add_noise
from spf_lite.models.running.sampling import sample
from spf_lite.options import ControlMapOptions
from spf_lite.widgets.attention_explorer import ALL_LAYERS


def layer_label(name: str) -> str:
    """The short name of a layer: ``up_blocks.2.attentions.1.transformer_blocks.0.attn2`` is "up 2.1"."""
    found = re.match(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.", name) or re.match(r"(mid)_block\.", name)
    if found is None:
        return name
    part, *numbers = found.groups()
    return " ".join(filter(None, [part, ".".join(numbers)]))


@torch.no_grad()
def control_map_items(
    backbone: Backbone,
    items: Sequence[Item],
    timesteps: Sequence[int],
    *,
    labels: Sequence[str] | None = None,
    options: ControlMapOptions | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Noise difference D and phrase maps A_p of some portraits.

    A portrait has the same noise eps at all timesteps. The layers are "all layers", whose maps are averaged before
    min-max normalisation, as in training, and then each layer by itself.

    Args:
        backbone: with the tuned weights, such as an adapter after stage 1, active.
        items: the portraits and texts of a custom set, encoded. A region that comes with one is the true region.
        timesteps: of the forward passes, from 0 to ``num_train_timesteps - 1``.
        labels: one for each portrait (default: "portrait 1" and so on).
        options: their ``smoothing`` is that of D.
        seed: of the noise.

    Raises:
        ValueError: if the number of labels is not that of the items, or a timestep is out of range.
    """
    labels = labels or [f"portrait {number + 1}" for number in range(len(items))]
    _check(backbone, labels, len(items), timesteps)
    found = []
    for number, (item, label) in enumerate(zip(items, labels, strict=True)):
        batch = collate([item], [False]).to(backbone.pipe.device)
        noise = _noise(batch.latents, seed * 1_000_003 + number)
        differences, maps, names = [], [], []
        for time in timesteps:
            noisy, times = _noised(backbone, batch.latents, noise, time)
            paths = both_paths(backbone, noisy, times, batch.base, batch.complete, record_reference=True)
            with paths as (reference, response):
                assert reference is not None
                own = {layer_label(name): {name: layer} for name, layer in reference.layers.items()}
                views = {ALL_LAYERS: reference.layers, **own}
                predictions = response.prediction, reference.prediction
                made = [
                    control_map(*predictions, view, batch.phrases, batch.distances, options) for view in views.values()
                ]
            names = list(views)
            differences.append(made[0].noise_difference[0, 0])
            maps.append(torch.stack([one.phrase_maps[0] for one in made]))
        found.append(
            {
                "label": label,
                "image": _picture(backbone, batch.latents),
                "phrases": [phrase.text for phrase in item.pair.phrases],
                "distances": item.distances.clamp(0, 2).tolist(),
                "timesteps": list(timesteps),
                "layers": names,
                "difference": _array(torch.stack(differences)),
                "phrase_maps": _array(torch.stack(maps)),
                "region": None if item.region is None else _array(item.region[0]),
            }
        )
    return found


@torch.no_grad()
def attention_items(
    backbone: Backbone,
    texts: Sequence[str],
    seeds: Sequence[int],
    timesteps: Sequence[int],
    *,
    labels: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Cross-attention maps of the reference path.

    For each text the reference model samples a portrait. Noise is added to its latents, up to each timestep, and the
    attention maps of the forward pass are recorded.

    Args:
        backbone: tuned weights are switched off meanwhile.
        texts: N prompts.
        seeds: of the portraits, N.
        timesteps: of the forward passes, from 0 to ``num_train_timesteps - 1``.
        labels: one for each portrait (default: text and seed).

    Raises:
        ValueError: if there are not N seeds or labels, or a timestep is out of range.
        PromptTooLongError: if a text has more tokens than the text encoder takes.
    """
    if len(seeds) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(seeds)} seeds: each portrait needs both")
    labels = labels or [f"{text} (seed {seed})" for text, seed in zip(texts, seeds, strict=True)]
    _check(backbone, labels, len(texts), timesteps)
    with backbone.reference():
        sampled = sample(backbone, texts, seeds=seeds, output_type="latent")
    found = []
    for text, seed, label, latents in zip(texts, seeds, labels, sampled.split(1), strict=True):
        tokens, hidden = _tokens(backbone, text), encode_texts(backbone, [text]).to(backbone.pipe.device)
        # Not the noise that the portrait was sampled from: its low frequencies are those of the portrait.
        noise = _noise(latents, int(seed) + 1_000_003)
        maps, names = [], []
        for time in timesteps:
            noisy, times = _noised(backbone, latents, noise, time)
            layers = reference_path(backbone, noisy, times, hidden, record_layers=True).layers
            names = [layer_label(name) for name in layers]
            maps.append(torch.stack([_grouped(record, len(tokens)) for record in layers.values()]))
        found.append(
            {
                "label": label,
                "image": _picture(backbone, latents),
                "tokens": tokens,
                "timesteps": list(timesteps),
                "layers": names,
                "maps": _array(torch.stack(maps)),
            }
        )
    return found


def _check(backbone: Backbone, labels: Sequence[str], count: int, timesteps: Sequence[int]) -> None:
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} portraits")
    num_train_timesteps = int(backbone.pipe.scheduler.config.num_train_timesteps)
    if not timesteps or any(not 0 <= time < num_train_timesteps for time in timesteps):
        raise ValueError(f"timesteps={list(timesteps)}: expected one or more, each from 0 to {num_train_timesteps - 1}")


def _noise(latents: Tensor, seed: int) -> Tensor:
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)


def _noised(backbone: Backbone, latents: Tensor, noise: Tensor, time: int) -> tuple[Tensor, Tensor]:
    times = torch.full((len(latents),), time, device=latents.device)
    return add_noise(backbone.pipe.scheduler, latents, noise, times), times


def _tokens(backbone: Backbone, text: str) -> list[str]:
    """Labels: "start", the words, "end", and one label for all padding tokens."""
    tokenizer = backbone.pipe.tokenizer
    length = tokenizer.model_max_length
    words = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])[1:-1]
    padding = length - len(words) - 2
    names = ["start", *(word.removesuffix("</w>") for word in words), "end"]
    return [*names, *([f"PAD × {padding}"] if padding else [])]


def _grouped(record: LayerRecord, count: int) -> Tensor:
    """Maps (heads, count, h, w), one for each token; the last is the sum over the padding, so that all sum to 1."""
    maps = record.maps[0].float().transpose(1, 2).unflatten(-1, record.size)
    return torch.cat([maps[:, : count - 1], maps[:, count - 1 :].sum(dim=1, keepdim=True)], dim=1)


def _picture(backbone: Backbone, latents: Tensor) -> Image.Image:
    pixels = decode_latents(backbone.pipe, latents)[0].float().clamp(0, 1).permute(1, 2, 0)
    return Image.fromarray(np.rint(_array(pixels) * 255).astype(np.uint8))


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.cpu().double().numpy()
