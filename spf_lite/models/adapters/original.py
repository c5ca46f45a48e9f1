"""The model without what was learned before.

Earlier adapters are merged into the weights of a run's reference (:func:`spf_lite.models.adapters.stack.merge`). Each
of them has errors of its own. If every run took them over, the errors of a chain would add up. So the weights before
the merger are kept, and serve where a text asks for none of the earlier targets. Ours, not the paper's.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from diffusers import ModelMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from spf_lite.models.precision import forget_casts


class OriginalWeights:
    """Weights that can take the place of those with earlier adapters.

    Args:
        network: with the earlier adapters merged into its weights.
        before: the weights that were there before, by layer; they are not copied.
    """

    def __init__(self, network: ModelMixin, before: Mapping[str, Tensor]) -> None:
        self.network, self.before = network, dict(before)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the network has the original weights; afterwards those that it had, also after an exception.

        No backward pass may span its entry or exit.
        """
        weights = {name: _weight(self.network.get_submodule(name)) for name in self.before}
        current = {name: weight.data for name, weight in weights.items()}
        try:
            for name, weight in weights.items():
                weight.data = self.before[name].to(weight)
            forget_casts()
            yield
        finally:
            for name, weight in weights.items():
                weight.data = current[name]
            forget_casts()


def _weight(layer: nn.Module) -> nn.Parameter:
    """The weight of a layer, also if an adapter has been put beside it since."""
    weight = (layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer).weight
    assert isinstance(weight, nn.Parameter)
    return weight
