"""What every way of training has in common: it changes a network, and the untouched model stays within reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

from diffusers import ModelMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from spf_lite.models.adapters.lora_file import Factors
from spf_lite.models.adapters.peft_layers import adapter_layers
from spf_lite.models.errors import BackboneError
from spf_lite.models.precision import forget_casts


class Trainable(ABC):
    """A change of a network that can be taken back.

    Attributes:
        parameters: what the optimiser moves, float32.
    """

    parameters: list[nn.Parameter]

    @contextmanager
    def reference(self) -> Iterator[ModelMixin]:
        """Gives the untouched network, to the last bit, also in mixed precision.

        The change is back at exit, also after an exception.
        """
        with self._untouched() as network:
            forget_casts()
            try:
                yield network
            finally:
                forget_casts()

    @abstractmethod
    def _untouched(self) -> AbstractContextManager[ModelMixin]:
        """What :meth:`reference` gives, without regard to mixed precision."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint needs, by name."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Set everything to what :meth:`state` gave."""

    @abstractmethod
    def lora_layers(self) -> dict[str, Tensor]:
        """The change as an ordinary LoRA of scale 1.

        Returns:
            ``<layer>.lora_A.weight`` (rank, inputs) and ``<layer>.lora_B.weight`` (outputs, rank), as peft names them.
        """

    def start_from(self, factors: Mapping[str, Factors]) -> None:
        """Begin with the change of an existing LoRA. Call it before the first step.

        Args:
            factors: by layer, from :func:`spf_lite.models.adapters.lora_file.read_lora`. Layers that are not among
                them begin unchanged.

        Raises:
            BackboneError: if this way of training cannot hold the change.
        """
        raise BackboneError(f"{type(self).__name__} cannot start from an existing LoRA")

    def start_along(self, rows: Tensor) -> None:
        """Begin with given rows of A in keys and values.

        Args:
            rows: (rank, width of the text encoder).

        Raises:
            BackboneError: if this way of training has no such factors.
        """
        raise BackboneError(f"{type(self).__name__} has no factors that could start along given rows")

    @contextmanager
    def using(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Within it the network is changed as an earlier :meth:`state` says.

        The weights are overwritten in place, so no backward pass may span its entry or exit.
        """
        current = {name: value.detach().clone() for name, value in self.state().items()}
        try:
            self.restore(state)
            forget_casts()
            yield
        finally:
            self.restore(current)
            forget_casts()

    def penalty(self) -> Tensor | None:
        """A scalar that this way of training adds to the loss, or None."""
        return None

    def after_backward(self, step: int) -> None:  # noqa: B027 (most have nothing to do here)
        """Called after the optimiser has moved and before the gradient is reset, with the number of the step."""


class PeftAdapter(Trainable):
    """An adapter of peft: layers beside the frozen ones, which can be switched off."""

    network: ModelMixin

    @cached_property
    def layers(self) -> list[BaseTunerLayer]:
        """The layers that carry it. Looked up once: a training step switches them off and on."""
        return adapter_layers(self.network)

    @contextmanager
    def _untouched(self) -> Iterator[ModelMixin]:
        for layer in self.layers:
            layer.enable_adapters(False)
        try:
            yield self.network
        finally:
            for layer in self.layers:
                layer.enable_adapters(True)
