"""The small CLIP: its text tower conditions the UNet, its image tower serves the enhancement loss and the measures.

Two losses: captions against images, softmax over the batch (CLIP, Radford et al. 2021), and *every phrase of the tiny
world* against every image, one binary classification each (SigLIP, Zhai et al. 2023). The second teaches what a single
phrase means, from all images of a batch at once.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from spf_lite.pretrain.dataset import load_split
from spf_lite.pretrain.loop import Schedule, fit
from spf_lite.pretrain.text import build_tokenizer, random_caption, true_phrases
from spf_lite.tiny_world.portraits import Portrait, all_phrases

SCHEDULE = Schedule(steps=3000, learning_rate=1e-3, warmup=150, decay=800, ema=0.995, weight_decay=0.05)
BATCH = 64
IMAGE_SIZE = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained towers."""
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": 128,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "projection_dim": 128,
        },
        projection_dim=128,
    )
    return CLIPModel(config)


class Towers(nn.Module):
    """CLIP plus the scale and bias of the phrase loss (SigLIP's t' and b), which are needed in training only."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.phrase_scale = nn.Parameter(torch.tensor(2.3))
        self.phrase_bias = nn.Parameter(torch.tensor(-4.0))


def shrink(images: Tensor) -> Tensor:
    """uint8 (B, 128, 128, 3) to float (B, 3, 64, 64) in [-1, 1], each pixel the mean of four."""
    return F.avg_pool2d(images.permute(0, 3, 1, 2).float().div(127.5).sub(1), images.shape[1] // IMAGE_SIZE)


def roughen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength: one-step predictions and early checkpoints give images that are not sharp.

    Args:
        images: (B, 3, H, W); not changed.
        generator: of the strengths and the noise.
    """
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(images), 1, 1, 1, generator=generator) ** 2
    noise = torch.randn(images.shape, generator=generator) * 0.15
    return images + share * (blurred - images) + noise * torch.rand(len(images), 1, 1, 1, generator=generator) ** 2


def tokenize(tokenizer: CLIPTokenizer, texts: list[str], length: int | None = None) -> Tensor:
    """Token ids (B, ``length``), padded; without ``length`` as long as the longest text."""
    padding = "max_length" if length else True
    ids: Tensor = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt").input_ids
    return ids


def losses(model: Towers, images: Tensor, captions: Tensor, vocabulary: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Contrastive and phrase losses; ``loss`` is their sum, the others are detached.

    Args:
        model: the towers.
        images: (B, 3, 64, 64).
        captions: token ids (B, length), one caption for each image.
        vocabulary: token ids (P, length), every phrase of the tiny world.
        truth: (B, P), 1 where the phrase is true of the image.
    """
    clip = model.clip
    image = clip.get_image_features(images).pooler_output
    text = clip.get_text_features(captions).pooler_output
    phrases = clip.get_text_features(vocabulary).pooler_output
    with torch.autocast("cpu", enabled=False):  # bfloat16 is too coarse for logits of up to 100
        image, text, phrases = (F.normalize(features.float(), dim=-1) for features in (image, text, phrases))
        logits = clip.logit_scale.exp().clamp(max=100) * image @ text.T
        answers = model.phrase_scale.exp() * image @ phrases.T + model.phrase_bias
    same = torch.arange(len(images))
    contrastive = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
    questions = F.binary_cross_entropy_with_logits(answers, truth, reduction="none")
    phrase = questions.sum(dim=1).mean() / truth.sum(dim=1).mean()
    right = ((answers > 0) == (truth > 0.5)).float()
    return {
        "loss": contrastive + phrase,
        "contrastive": contrastive.detach(),
        "phrase": phrase.detach(),
        "caption_found": (logits.argmax(dim=1) == same).float().mean(),
        "phrase_recall": (right * truth).sum() / truth.sum(),
        "phrase_precision": (right * truth).sum() / (answers > 0).sum().clamp(min=1),
    }


def phrase_truth(portraits: list[Portrait]) -> Tensor:
    """Which phrase of the tiny world is true of which portrait: (N, P) of 0 and 1."""
    index = {phrase: i for i, phrase in enumerate(all_phrases())}
    truth = torch.zeros(len(portraits), len(index))
    for row, portrait in enumerate(portraits):
        truth[row, [index[phrase] for phrase in true_phrases(portrait)]] = 1
    return truth


def train(folder: Path, schedule: Schedule = SCHEDULE) -> tuple[CLIPModel, CLIPTokenizer]:
    """Train or resume; returns CLIP with averaged weights, and the tokenizer."""
    tokenizer = build_tokenizer()
    base, mixed = load_split(folder / "portraits", "base", 8), load_split(folder / "portraits", "mixed")
    pool = torch.cat([shrink(part) for images in (mixed, base) for part in torch.from_numpy(images.images).split(500)])
    portraits = mixed.portraits + base.portraits
    truth = phrase_truth(portraits)
    vocabulary = tokenize(tokenizer, all_phrases())

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, Towers)
        chosen = torch.randint(len(pool), (BATCH,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = tokenize(tokenizer, [random_caption(portraits[i], rng) for i in chosen.tolist()])
        return losses(model, roughen(pool[chosen], generator), captions, vocabulary, truth[chosen])

    towers = Towers(build(tokenizer))
    # Plain matrix products: the backward pass of the fused attention is slow in 16 bits on a CPU.
    towers.clip.set_attn_implementation("eager")
    model = fit("clip", towers, step, schedule, folder)
    assert isinstance(model, Towers)
    return model.clip, tokenizer
