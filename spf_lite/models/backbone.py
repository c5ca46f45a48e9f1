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
from diffusers.loaders.single_file_utils import SingleFileComponentError
from torch import Tensor, nn

from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.lora import adapters_off
from spf_lite.models.adapters.original import OriginalWeights
from spf_lite.models.backbones.architecture import Architecture
from spf_lite.models.backbones.registry import architecture_of
from spf_lite.models.clip import Clip
from spf_lite.models.codec import decode_latents
from spf_lite.models.errors import BackboneError
from spf_lite.models.loading.compatibility import check_pipeline, check_precision, check_source
from spf_lite.models.loading.single_file import check_complete, check_convertible, with_config
from spf_lite.models.quiet import no_loading_bars
from spf_lite.models.source import Source
from spf_lite.models.specification import USUAL_GUIDANCE, BackboneSpec, shipped_folders, specification_of
from spf_lite.models.tokenizer import Reader

#: What diffusers' conversion of a single file raises if the file does not fit the configuration.
_MISFITS = (KeyError, IndexError, AttributeError, RuntimeError, SingleFileComponentError)


@dataclass
class Backbone:
    """A loaded pipeline and what belongs to it.

    Attributes:
        pipe: diffusers' pipeline; its network carries the adapters.
        spec: what the code needs to know about it.
        trainable: what a trainer has put on the network; None: nothing, or a loaded adapter.
        original: the weights without earlier adapters, if these are part of the reference.
    """

    pipe: DiffusionPipeline
    spec: BackboneSpec
    _clip: Clip | None = field(default=None, repr=False)
    trainable: Trainable | None = field(default=None, repr=False)
    original: OriginalWeights | None = field(default=None, repr=False)

    @property
    def architecture(self) -> Architecture:
        """The class that the model is of."""
        return architecture_of(self.pipe)

    @property
    def network(self) -> ModelMixin:
        """The network that is trained: a UNet or a transformer."""
        return self.architecture.network(self.pipe)

    @property
    def device(self) -> torch.device:
        """Where the network computes. What is not needed may be elsewhere (:mod:`spf_lite.models.running.resting`)."""
        return torch.device(self.network.device)

    @property
    def side(self) -> int:
        """Side of the square latents that the model was trained on, the longer one if they are not square."""
        size = self.network.config.sample_size
        return int(size if isinstance(size, int) else max(size))

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
        return model.requires_grad_(False).eval().to(self.device)

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
        return (self._clip or Clip.load(self.spec.clip)).to(self.device)


def best_device() -> torch.device:
    """This process's CUDA card (``LOCAL_RANK`` says which of several), or else Apple's ``mps``, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    name: str = "tiny",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    revision: str | None = None,
    variant: str | None = None,
    config: str | None = None,
) -> Backbone:
    """Load a backbone.

    Args:
        name: ``tiny`` or ``tiny-transformer`` (shipped), ``sd15`` (from the hub), or any folder or hub id of a pipeline
            of a supported class (:data:`spf_lite.models.backbones.registry.ARCHITECTURES`), which its
            ``model_index.json`` names, or a single file (``.safetensors`` or ``.ckpt``) in the layout of the original
            code; ``~`` is the home folder.
        device: where its modules go; default: :func:`best_device`.
        dtype: of its weights, one of :data:`spf_lite.models.loading.compatibility.DTYPES`; default: float32. With
            16 bits a GPU holds a larger model, and training has to compute in mixed precision. CLIP, which measures,
            stays in float32.
        revision: branch, tag or commit on the hub, of the model's files; default: the main branch.
        variant: of the weight files, such as ``fp16``; default: the plain files.
        config: folder or hub id that the configuration of a single file comes from; default: the repository on the hub
            that diffusers guesses by the shapes in the file.

    Raises:
        BackboneError: if there is no such model, or it is of a kind that the method cannot work with
            (:mod:`spf_lite.models.loading.compatibility`), which is found out before its weights are read; if a file
            cannot be read safely; if options make no sense together; or if the device does not compute in ``dtype``.
    """
    config = None if config is None else str(Path(config).expanduser()) if config.startswith("~") else config
    spec = specification_of(name, config)
    spec = replace(spec, dtype=dtype or spec.dtype)
    device = torch.device(device) if device is not None else best_device()
    check_precision(device, spec.dtype)
    architecture, pipe = _pipeline(name, Source(spec.source, revision, variant, config))
    pipe.set_progress_bar_config(disable=True)
    check_pipeline(pipe)
    architecture.check_dtype(pipe, spec.dtype)
    for module in architecture.modules(pipe).values():
        module.requires_grad_(False).eval()
        _to_dtype(module, spec.dtype)
    resolution = architecture.attention_resolution(architecture.network(pipe).config, spec.attention_resolution)
    guidance = architecture.guidance_scale if spec.guidance_scale == USUAL_GUIDANCE else spec.guidance_scale
    return Backbone(pipe.to(device), replace(spec, attention_resolution=resolution, guidance_scale=guidance))


def _pipeline(name: str, source: Source) -> tuple[Architecture, DiffusionPipeline]:
    """The pipeline of a source and its class; what is known of it is checked before its weights are read."""
    is_path = name in shipped_folders() or Path(source.location).exists() or name.startswith((".", "/", "~"))
    guessed = source.is_file and source.config is None
    if source.is_file:
        source = with_config(source)
    elif is_path and not (Path(source.location) / "model_index.json").is_file():
        raise BackboneError(f"no diffusers model in {source.location}: there is no model_index.json")
    try:
        architecture = check_source(source)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, BackboneError):
            raise
        if source.is_file:
            hint = "name a folder or another hub id by config= (--config)"
            whose = "diffusers takes it for a file of" if guessed else "its configuration is that of"
            raise BackboneError(
                f"{source.location!r}: {whose} {source.config}, which cannot be read ({error}); {hint}"
            ) from error
        raise BackboneError(f"{source.location!r} cannot be loaded as a diffusers pipeline: {error}") from error
    if source.is_file:
        check_convertible(architecture)
    try:
        with no_loading_bars():
            pipe = architecture.load(source)
    except (OSError, ValueError, TypeError, *_MISFITS) as error:
        if isinstance(error, _MISFITS) and not source.is_file:
            raise
        kind = f"{architecture.title} pipeline" + (f" as {source.config} describes it" if source.is_file else "")
        lacking = isinstance(error, NotImplementedError)  # what the file lacks has no values that could be moved
        reason = "it lacks weights of a part" if lacking else f"{error}{source.variant_hint()}"
        raise BackboneError(f"{source.location!r} cannot be loaded as a {kind}: {reason}") from error
    if source.is_file:
        check_complete(source, pipe, architecture)
    return architecture, pipe


def _to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert weights. transformers may have taken the type that its part is stored in, diffusers always 32 bits."""
    if module.dtype == dtype:
        return
    nn.Module.to(module, dtype)  # diffusers' own method warns of parts that the model may not have
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    for name, part in module.named_modules():
        if dtype == torch.float16 and name.rpartition(".")[2] in kept:  # what would overflow, such as T5's "wo"
            part.float()
