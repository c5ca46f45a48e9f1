"""A loaded text-to-image model. Its one network serves both paths: with its adapters off it *is* the reference path.

The tiny model and large ones run the same code. What differs between models of one class is in
:class:`spf_lite.models.specification.BackboneSpec`, what differs between classes in
:class:`spf_lite.models.backbones.architecture.Architecture`.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, ModelMixin
from torch import Tensor, nn

from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.lora import adapters_off
from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.backbones.registry import architecture_of
from spf_lite.models.clip import Clip
from spf_lite.models.codec import decode_latents
from spf_lite.models.compatibility import check_pipeline, check_precision, check_source
from spf_lite.models.errors import BackboneError
from spf_lite.models.quiet import no_loading_bars
from spf_lite.models.specification import USUAL_GUIDANCE, BackboneSpec, specification_of
from spf_lite.models.tokenizer import Reader


@dataclass
class Backbone:
    """A loaded pipeline and what belongs to it.

    Attributes:
        pipe: diffusers' pipeline; its network carries the adapters.
        spec: what the code needs to know about it.
        trainable: what a trainer has put on the network; None: nothing, or a loaded adapter.
    """

    pipe: DiffusionPipeline
    spec: BackboneSpec
    _clip: Clip | None = field(default=None, repr=False)
    trainable: Trainable | None = field(default=None, repr=False)

    @property
    def architecture(self) -> Architecture:
        """The class that the model is of."""
        return architecture_of(self.pipe)

    @property
    def network(self) -> ModelMixin:
        """The network that is trained: a UNet or a transformer."""
        return self.architecture.network(self.pipe)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """How its text encoders read a text."""
        return self.architecture.readers(self.pipe)

    def reference(self) -> AbstractContextManager[ModelMixin]:
        """A context that gives the untouched network: adapters off, or the original weights back, until exit."""
        return self.trainable.reference() if self.trainable else adapters_off(self.network)

    def predict(self, network: ModelMixin, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """One forward pass; see :meth:`spf_lite.models.backbones.architecture.Architecture.predict`."""
        return self.architecture.predict(network, noisy, times, text)

    @cached_property
    def preview(self) -> AutoencoderTiny | None:
        """The small decoder of one-step predictions, if the specification names one. Loaded at first use."""
        if self.spec.preview is None:
            return None
        with no_loading_bars():
            model = AutoencoderTiny.from_pretrained(self.spec.preview)
        return model.requires_grad_(False).eval().to(self.pipe.device)

    def decode_preview(self, latents: Tensor) -> Tensor:
        """Decode one-step predictions for CLIP, by the small decoder if there is one.

        Args:
            latents: scaled, (B, C, h, w).

        Returns:
            images (B, 3, 8h, 8w), in [0, 1] but for small overshoots; the gradient flows to ``latents``.
        """
        if self.preview is None:
            return decode_latents(self.pipe, latents)
        decoded: Tensor = self.preview.decode(latents).sample
        return decoded / 2 + 0.5

    @cached_property
    def clip(self) -> Clip:
        """The CLIP model of phrase distances and of the enhancement loss. Loaded at first use."""
        return (self._clip or Clip.load(self.spec.clip)).to(self.pipe.device)


def best_device() -> torch.device:
    """This process's GPU (``LOCAL_RANK`` says which of several), or the CPU if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def load(name: str = "tiny", device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """Load a backbone.

    Args:
        name: ``tiny`` (shipped), ``sd15`` (from the hub), or any folder or hub id of a pipeline of a supported class
            (:data:`spf_lite.models.backbones.registry.ARCHITECTURES`), which its ``model_index.json`` names; ``~`` is
            the home folder.
        device: where its modules go; default: :func:`best_device`.
        dtype: of its weights, one of :data:`spf_lite.models.compatibility.DTYPES`; default: float32. With 16 bits a
            GPU holds a larger model, and training has to compute in mixed precision. CLIP, which measures,
            stays in float32.

    Raises:
        BackboneError: if there is no such model, or it is of a kind that the method cannot work with
            (:mod:`spf_lite.models.compatibility`), which is found out before its weights are read; or if the device
            does not compute in ``dtype``.
    """
    spec = specification_of(name)
    spec = replace(spec, dtype=dtype or spec.dtype)
    device = torch.device(device) if device is not None else best_device()
    check_precision(device, spec.dtype)
    is_path = name == "tiny" or Path(spec.source).exists() or name.startswith((".", "/", "~"))
    if is_path and not (Path(spec.source) / "model_index.json").is_file():
        raise BackboneError(f"no diffusers model in {spec.source}: there is no model_index.json")
    kind = "diffusers"
    try:
        architecture = check_source(spec.source)
        kind = architecture.title
        with no_loading_bars():
            pipe = architecture.load(spec.source)
    except BackboneError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(f"{spec.source!r} cannot be loaded as a {kind} pipeline: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    check_pipeline(pipe)
    architecture.check_dtype(pipe, spec.dtype)
    for module in architecture.modules(pipe).values():
        module.requires_grad_(False).eval()
        _to_dtype(module, spec.dtype)
    resolution = architecture.attention_resolution(architecture.network(pipe).config, spec.attention_resolution)
    guidance = architecture.guidance_scale if spec.guidance_scale == USUAL_GUIDANCE else spec.guidance_scale
    return Backbone(pipe.to(device), replace(spec, attention_resolution=resolution, guidance_scale=guidance))


def _to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert weights. transformers may have taken the type that its part is stored in, diffusers always 32 bits."""
    if module.dtype == dtype:
        return
    nn.Module.to(module, dtype)  # diffusers' own method warns of parts that the model may not have
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    for name, part in module.named_modules():
        if dtype == torch.float16 and name.rpartition(".")[2] in kept:  # what would overflow, such as T5's "wo"
            part.float()
