"""What both paths have in common is computed once.

Up to the first cross-attention layer no text has reached the picture and nothing that is trained has touched it: given
the same noisy latent and timestep, both paths compute the same there, to the last bit. In a UNet of Stable Diffusion
1.5's size that stretch holds one of the five dearest self-attentions.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


def before_cross_attention(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The modules that a forward pass goes through before its first cross-attention layer, in order."""
    found: list[nn.Module] = [unet.time_embedding, unet.conv_in]
    for block in unet.down_blocks:
        if not getattr(block, "has_cross_attention", False):
            found.append(block)
            continue
        transformer = block.attentions[0]
        first = transformer.transformer_blocks[0]
        return [*found, block.resnets[0], transformer.norm, transformer.proj_in, first.norm1, first.attn1]
    return found


@contextmanager
def shared_prefix(unet: UNet2DConditionModel) -> Iterator[None]:
    """Within it, a module before the first cross-attention that is given what it was given before answers as before.

    What it is given is compared value by value, so a pass with another latent or timestep is computed anew; and so is
    everything that holds a weight in training.

    Args:
        unet: that several passes are made through. Its modules are as they were on exit, whatever happens.
    """
    modules = [m for m in before_cross_attention(unet) if not any(weight.requires_grad for weight in m.parameters())]
    patched = {module: module.__dict__.get("forward") for module in modules}
    for module in modules:
        module.forward = _Once(module.forward)
    try:
        yield
    finally:
        for module, earlier in patched.items():
            if earlier is None:
                del module.forward
            else:  # somebody else's, such as a hook that moves weights between devices
                module.forward = earlier


class _Once:
    """A module's forward pass that remembers its last arguments and answer."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward
        self.known: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.answer: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        given = (arguments, options)
        if self.known is None or not _same(self.known, given):
            self.answer = self.forward(*arguments, **options)
            self.known = given
        return self.answer


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are the same, value by value."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # A remembered answer has no gradient to pass on.
        if other.requires_grad or one.dtype != other.dtype:
            return False
        if one.is_meta:  # no numbers to compare: what matters is which memory is taken
            return one.shape == other.shape
        return torch.equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other) if not isinstance(one, Tensor) and not isinstance(other, Tensor) else False
