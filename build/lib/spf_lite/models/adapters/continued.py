"""One adapter continued: it holds earlier attributes already, learns another one, and the reference has the earlier
ones as well.

The factors go on from where they were. On the response path the network has its own weights and the adapter, on the
reference path the weights with the earlier change merged into them, and no adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from diffusers import ModelMixin
from torch import Tensor

from spf_lite.models.adapters.lora_file import Factors
from spf_lite.models.adapters.trainable import Lora, check_fits


class ContinuedLora(Lora):
    """A LoRA that begins as an earlier one, whose change the reference keeps.

    Args:
        network: with the earlier change merged into its weights (:func:`spf_lite.models.adapters.stack.merge`).
        rank: of the factors; at least that of the earlier ones.
        seed: of the rows of A that the earlier factors leave free.
        layers: that it is put on, one of :data:`spf_lite.choices.LAYERS`.
        factors: the earlier ones, by layer.
        before: the weights without the earlier change, from :func:`~spf_lite.models.adapters.stack.merge`.

    Raises:
        BackboneError: if the earlier factors have a larger rank, or change other layers.
    """

    def __init__(
        self,
        network: ModelMixin,
        rank: int,
        seed: int,
        layers: str,
        factors: Mapping[str, Factors],
        before: Mapping[str, Tensor],
    ) -> None:
        check_fits(factors, network, rank, layers, "the earlier adapter cannot be continued")
        super().__init__(network, rank, seed, layers)
        self.start_from(factors)
        self._weights = {name: network.get_submodule(name).get_base_layer().weight for name in before}
        self._merged = {name: weight.data for name, weight in self._weights.items()}
        self._own = dict(before)
        self._use(self._own)

    @contextmanager
    def _untouched(self) -> Iterator[ModelMixin]:
        with super()._untouched() as network:
            self._use(self._merged)
            try:
                yield network
            finally:
                self._use(self._own)

    def _use(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.data = values[name]
