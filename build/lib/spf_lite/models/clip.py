"""CLIP as the method needs it: distances between phrases, and embeddings of pictures that a gradient can flow
through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from spf_lite.models.quiet import no_loading_bars

#: PyTorch's names of the filters that image processors resize with.
_FILTERS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def _embedding(output: object) -> Tensor:
    """transformers 5 wraps the embedding in an output object, 4 returns it bare."""
    features = getattr(output, "pooler_output", output)
    assert isinstance(features, Tensor)
    return features


@dataclass
class Clip:
    """A frozen CLIP model with its tokenizer and the settings of its image processor (Radford et al. 2021).

    Attributes:
        model: float32.
        tokenizer: of its text tower.
        mean: of each colour channel, (3, 1, 1), which pictures are normalised by.
        std: likewise.
        resample: ``bilinear`` or ``bicubic``, how pictures are resized.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    mean: Tensor
    std: Tensor
    resample: str = "bicubic"

    @classmethod
    def load(cls, source: str) -> Clip:
        """Load a model with its tokenizer and image processor.

        Args:
            source: folder or hub id.

        Raises:
            ValueError: if there is no CLIP model.
        """
        try:
            with no_loading_bars():
                model = CLIPModel.from_pretrained(source, dtype=torch.float32)
            processor = CLIPImageProcessor.from_pretrained(source)
            tokenizer = CLIPTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise ValueError(f"no CLIP model in {source!r}: {error}") from error
        mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
        resample = _FILTERS[Image.Resampling(processor.resample)]
        return cls(model.eval().requires_grad_(False), tokenizer, mean, std, resample)

    def to(self, device: torch.device) -> Clip:
        """Move it to a device, in place; returns itself."""
        self.model.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def image_features(self, images: Tensor) -> Tensor:
        """Unit embeddings of pictures.

        Args:
            images: (B, 3, H, W) in [0, 1], any size; they are resized with antialiasing and normalised like the
                model's image processor does.

        Returns:
            (B, width); the gradient flows back to ``images``.
        """
        size = self.model.config.vision_config.image_size
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode=self.resample, antialias=True, align_corners=False)
        features = _embedding(self.model.get_image_features((images - self.mean) / self.std))
        return F.normalize(features, dim=-1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings of N texts, (N, width), without gradient. Longer texts are truncated."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        features = _embedding(self.model.get_text_features(tokens.input_ids, tokens.attention_mask))
        return F.normalize(features, dim=-1)

    def phrase_distances(self, phrases: Sequence[str], target: str) -> Tensor:
        r"""Cosine distance of each phrase from the target.

        .. math:: D_\mathrm{CLIP}(E_\mathrm{tar}, E_p) = 1 - \cos(E_\mathrm{tar}, E_p)

        Source: SPF-Portrait (arXiv 2504.00396), the weights of the phrases in the control map.

        Args:
            phrases: P phrases of a base text.
            target: the target text.

        Returns:
            (P,), from 0 (the same) to 2.
        """
        if not phrases:
            return torch.zeros(0)
        features = self.text_features([*phrases, target])
        return 1 - features[:-1] @ features[-1]
