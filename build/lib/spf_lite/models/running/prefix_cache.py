"""The layers that both paths have in common are computed once.

Before the first layer that a text enters no layer is trained: given the same noisy latent and timestep, reference and
response path compute the same there, to the last bit. In Stable Diffusion 1.5 this prefix holds one of the five
self-attentions at the highest resolution, which are the most expensive. Which modules it holds, the model's class says
(:meth:`spf_lite.models.backbones.architecture.Architecture.before_text`).

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor

from spf_lite.models.backbones.registry import architecture_of_network


@contextmanager
def shared_prefix(network: ModelMixin) -> Iterator[None]:
    """Within it, a module before the first layer that a text enters returns its last output if its inputs are the same.

    Inputs are compared value by value, so a pass with another latent or timestep is computed anew. Modules with
    trainable weights are always computed.

    Args:
        network: that several passes are made through. Its modules are restored at exit, also after an exception.
    """
    shared = architecture_of_network(network).before_text(network)
    modules = [m for m in shared if not any(weight.requires_grad for weight in m.parameters())]
    patched = {module: module.__dict__.get("forward") for module in modules}
    for module in modules:
        module.forward = _CachedForward(module.forward)
    try:
        yield
    finally:
        for module, earlier in patched.items():
            if earlier is None:
                del module.forward
            else:  # somebody else's, such as a hook that moves weights between devices
                module.forward = earlier


class _CachedForward:
    """A module's forward pass with a cache of one entry."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward
        self.inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.output: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        inputs = (arguments, options)
        if self.inputs is None or not _same(self.inputs, inputs):
            self.output = self.forward(*arguments, **options)
            self.inputs = inputs
        return self.output


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are the same, value by value."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # A cached output passes no gradient on.
        if other.requires_grad or one.dtype != other.dtype:
            return False
        if one.is_meta:  # no values to compare: such passes only count memory
            return one.shape == other.shape
        return torch.equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other) if not isinstance(one, Tensor) and not isinstance(other, Tensor) else False
