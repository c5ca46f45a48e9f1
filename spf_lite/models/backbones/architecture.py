"""What the method has to know about a class of text-to-image models, as one interface.

Everything else is written once, for all classes:

========================================  ==========================================================
question                                  answer
========================================  ==========================================================
which models are of this class            :class:`spf_lite.models.backbones.pipeline_class.PipelineClass`
how a text is read and encoded            :meth:`Architecture.readers`, :meth:`Architecture.encode`
what one forward pass is                  :meth:`Architecture.predict`
which layers are recorded, and how        :meth:`Architecture.recorded_layers`, :meth:`Architecture.recorder`
what both paths share                     :meth:`Architecture.before_text`
which layers are trained                  :attr:`Architecture.lora_layers`
how the class samples                     :meth:`Architecture.sampling_options`
how its LoRA files are read and written   :meth:`Architecture.read_lora_file`, :meth:`Architecture.adapter_files`
========================================  ==========================================================

What a prediction is (noise, velocity, velocity of a flow) belongs to the scheduler: :mod:`spf_lite.models.diffusion`.

A text is *one* tensor of R rows in every class. Its first rows belong to the tokens, one row for each. What else a
class derives from a text, such as a pooled embedding or a mask, lies in rows behind them, and the class alone knows
them. So items, batches and checkpoints hold the texts of every class alike.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from diffusers import DiffusionPipeline, ModelMixin
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from spf_lite.models.backbones.pipeline_class import PipelineClass
from spf_lite.models.backbones.recording import CrossAttentionRecorder, LayerRecord, Recorder
from spf_lite.models.errors import BackboneError
from spf_lite.models.specification import USUAL_GUIDANCE
from spf_lite.models.tokenizer import Reader

#: A LoRA file's tensors, kohya's alphas by layer, and peft's options of the network's adapter.
LoraFile = tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]


class Architecture(PipelineClass):
    """A class of models. It has no state; pipelines and networks are passed.

    Attributes:
        guidance_scale: of classifier-free guidance (Ho & Salimans 2022), diffusers' default for the class.
        lora_layers: the layers of each of :data:`spf_lite.choices.LAYERS` that the class has, by the ends of their
            names.
        text_projections: those of them that read the text; empty: none reads it as the encoder gives it.
        processors: attention processors that a recorder can stand in for.
    """

    guidance_scale: ClassVar[float] = USUAL_GUIDANCE
    lora_layers: ClassVar[Mapping[str, tuple[str, ...]]]
    text_projections: ClassVar[tuple[str, ...]]
    processors: ClassVar[tuple[type, ...]]

    # -- sizes ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def size_multiple(self, config: Mapping[str, Any]) -> int:
        """What both sides of the latents have to be multiples of, by the network's configuration."""

    @abstractmethod
    def attention_resolution(self, config: Mapping[str, Any], wanted: int) -> int:
        """Longer side of the recorded feature maps, for portraits of the model's own size.

        Args:
            config: of the network.
            wanted: the side that is wished for; the nearest that the network has is taken.
        """

    # -- texts ---------------------------------------------------------------------------------------------------------

    def readers(self, pipe: DiffusionPipeline) -> tuple[Reader, ...]:
        """How texts are cut into tokens, one reader for each row of tokens. A text's ids are those of all, in order."""
        return (Reader.of(pipe.tokenizer),)

    def blank_rows(self, pipe: DiffusionPipeline) -> int:
        """How many rows without a token follow those of the readers. Attention sees them as it sees padding."""
        return 0

    @abstractmethod
    def encode(self, pipe: DiffusionPipeline, ids: Tensor) -> Tensor:
        """Encode texts.

        Args:
            pipe: gives the text encoders.
            ids: token ids of all readers, (B, L).

        Returns:
            (B, R, width), float32, on the pipeline's device; the first L rows belong to the tokens.
        """

    def empty(self, pipe: DiffusionPipeline, encoded: Tensor) -> Tensor:
        """What guidance leads away from when no negative prompt is given.

        Args:
            pipe: the pipeline.
            encoded: the empty text, encoded, (R, width).
        """
        return encoded

    @abstractmethod
    def text_shape(self, pipe: DiffusionPipeline) -> tuple[int, int]:
        """R and the width of an encoded text."""

    def check_contrast(self) -> None:
        """Check that low-rank factors can start along directions of the text (:mod:`spf_lite.method.contrast`).

        Raises:
            BackboneError: if no keys and values read the text alone.
        """
        if not self.text_projections:
            raise BackboneError(f"{self.title} has no keys that read the text alone: set contrast=0")

    def projected_text(self, network: ModelMixin, text: Tensor) -> tuple[Tensor, Tensor]:
        """What keys and values read of a text.

        Args:
            network: may project the text before its first layer.
            text: encoded, (R, width).

        Returns:
            the rows of the tokens, (L, inputs of the keys), and which of them are read, (L,) of booleans.

        Raises:
            BackboneError: if keys and values read something that depends on more than the text.
        """
        self.check_contrast()
        raise NotImplementedError(f"{type(self).__name__} has text_projections: it has to say what they read")

    # -- one pass ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def predict(self, network: ModelMixin, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """One forward pass.

        Args:
            network: with what is trained, or without.
            noisy: z_t, (B, C, h, w).
            times: as the network takes them (:func:`spf_lite.models.diffusion.network_times`), (B,) or a scalar.
            text: encoded, (B, R, width).

        Returns:
            the prediction, (B, C, h, w), float32.
        """

    @abstractmethod
    def before_text(self, network: ModelMixin) -> list[nn.Module]:
        """The modules that a forward pass runs before a text enters and before the first trained layer, in order.

        Given the same noisy latents and timestep both paths compute the same there.
        """

    # -- attention -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def recorded_layers(self, network: ModelMixin) -> dict[str, Attention]:
        """The layers through which a text reaches the picture and that may be recorded, by name."""

    def recorder(
        self, name: str, original: Any, size: tuple[int, int], resolution: int, records: dict[str, LayerRecord]
    ) -> Recorder:
        """A processor that records one layer; arguments as in :class:`spf_lite.models.backbones.recording.Recorder`."""
        return CrossAttentionRecorder(name, original, size, resolution, records)

    # -- training ------------------------------------------------------------------------------------------------------

    def trained_layers(self, layers: str) -> tuple[str, ...]:
        """Ends of the names of the layers that are trained.

        Args:
            layers: one of :data:`spf_lite.choices.LAYERS`.

        Raises:
            BackboneError: if the class has no such layers.
        """
        if layers not in self.lora_layers:
            raise BackboneError(f"{self.title} has no {layers} to train: set layers={', '.join(self.lora_layers)}")
        return self.lora_layers[layers]

    # -- sampling and files --------------------------------------------------------------------------------------------

    def sampling_options(self, pipe: DiffusionPipeline, negative: Sequence[str]) -> dict[str, Any]:
        """Arguments of the pipeline's call besides prompts, steps, guidance, size and noise.

        Args:
            pipe: the pipeline.
            negative: the negative prompt of each portrait; empty texts: none was given.
        """
        return {"negative_prompt": list(negative)}

    @abstractmethod
    def read_lora_file(self, file: Path, network: ModelMixin) -> LoraFile:
        """Read a LoRA file, in any naming that diffusers converts.

        Args:
            file: ``.safetensors``.
            network: that the adapter is for.
        """

    @abstractmethod
    def adapter_files(self, layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, bytes]:
        """The files of an adapter that the pipeline of this class loads, by name.

        Args:
            layers: both factors of each layer, ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``.
            metadata: texts that stand in the file besides.
        """

    def loading_hint(self) -> str:
        """The call that loads an adapter's folder into the plain pipeline, for a model card."""
        return "`pipe.load_lora_weights(folder)` of diffusers loads it."
