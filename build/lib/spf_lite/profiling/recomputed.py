"""Memory of gradient checkpointing: what a block needs while it is computed again in the backward pass.

With checkpointing autograd saves the inputs of each block. In the backward pass one block at a time is computed again,
with everything that it saves. So the peak is that of all inputs and of the largest block.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import ModelMixin
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spf_lite.profiling.saved import saved_for_backward, storage_key, total_bytes


@contextmanager
def counted_blocks(network: ModelMixin, weights: set[int]) -> Iterator[list[int]]:
    """Checkpoint the blocks of a network within the context, and count what each one saves when computed again.

    Args:
        network: one that can checkpoint; as before when the context ends.
        weights: keys of storages that are not counted.

    Yields:
        bytes of each block, filled by forward passes with gradients.
    """
    sizes: list[int] = []
    before = network.is_gradient_checkpointing

    def count(block: Callable[..., Any], *inputs: Any) -> Any:
        with saved_for_backward() as saved:
            block(*inputs)
        given = {storage_key(one) for one in inputs if isinstance(one, Tensor)}
        sizes.append(total_bytes(saved, weights | given))
        return checkpoint(block, *inputs, use_reentrant=False)

    network.enable_gradient_checkpointing(count)
    try:
        yield sizes
    finally:
        network.disable_gradient_checkpointing()
        if before:
            network.enable_gradient_checkpointing()
