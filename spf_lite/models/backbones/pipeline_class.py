"""Which pipelines of a class the library takes, and how they are loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from spf_lite.models.source import Source


class PipelineClass(ABC):
    """The part of :class:`spf_lite.models.backbones.architecture.Architecture` that loading needs.

    Attributes:
        title: for messages.
        pipeline: diffusers' pipeline that loads it.
        prefix: what the names of all its pipelines begin with, such as those for inpainting; empty: they tell nothing.
        part: name of the network in the pipeline; also the prefix of its keys in a LoRA file.
        network_name: of the network, for messages and tables.
        encoders: names of the frozen parts that encode texts.
    """

    title: ClassVar[str]
    pipeline: ClassVar[type[DiffusionPipeline]]
    prefix: ClassVar[str] = ""
    part: ClassVar[str]
    network_name: ClassVar[str] = "transformer"
    encoders: ClassVar[tuple[str, ...]]

    @abstractmethod
    def claims(self, network: nn.Module) -> bool:
        """Whether a network is of this class."""

    @abstractmethod
    def check_source(self, source: Source, index: Mapping[str, Any]) -> None:
        """Check a pipeline by its configuration files, before its weights are read or downloaded.

        Args:
            source: where it is stored.
            index: its ``model_index.json``.

        Raises:
            BackboneError: if it is of an unsupported kind.
            OSError: if a configuration file is missing.
        """

    @abstractmethod
    def check_pipeline(self, pipe: DiffusionPipeline) -> None:
        """Check a loaded pipeline: all that :meth:`check_source` checks, its text encoders and attention processors.

        Raises:
            BackboneError: if it is of an unsupported kind.
        """

    @abstractmethod
    def check_network(self, network: ModelMixin) -> None:
        """Check that a network can be tuned and recorded.

        Raises:
            BackboneError: if it is compiled, of an unsupported kind, or has foreign attention processors.
        """

    def name_faults(self, index: Mapping[str, Any]) -> list[str]:
        """Whether a pipeline is another one of this class: for inpainting, for pictures as prompts, and so on."""
        name, own = index.get("_class_name"), self.pipeline.__name__
        return [] if not self.prefix or name == own else [f"the pipeline is {name}, supported is {own}"]

    def check_dtype(self, pipe: DiffusionPipeline, dtype: torch.dtype) -> None:  # noqa: B027 (most have no limits)
        """Check that the frozen weights of a model may have a type.

        Raises:
            BackboneError: if they would overflow in it.
        """

    def loading_options(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the loader besides the source.

        Args:
            index: the pipeline's ``model_index.json``.
        """
        return {}

    def load(self, source: Source) -> DiffusionPipeline:
        """The pipeline, with weights of the types that they are stored in; from a single file in 32 bits."""
        options = {**self.loading_options(source.index()), **source.version}
        if source.is_file:
            return self.pipeline.from_single_file(source.location, config=source.configs, **options)
        variant = {} if source.variant is None else {"variant": source.variant}
        return self.pipeline.from_pretrained(source.location, **options, **variant)

    def network(self, pipe: DiffusionPipeline) -> ModelMixin:
        """The network that is trained."""
        return getattr(pipe, self.part)

    def modules(self, pipe: DiffusionPipeline) -> dict[str, nn.Module]:
        """Every part with weights, by name: the network, the text encoders that are there, the autoencoder."""
        names = (self.part, *self.encoders, "vae")
        return {name: module for name in names if (module := getattr(pipe, name)) is not None}
