"""What autograd saves for the backward pass, each storage once.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def saved_for_backward() -> Iterator[dict[int, Tensor]]:
    """Record what autograd saves for backward within the context.

    Yields:
        one tensor for each storage, by a key of the storage; filled by forward passes.
    """
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(storage_key(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def storage_key(tensor: Tensor) -> int:
    """A key of the memory that a tensor lies in; views of one tensor share it."""
    return int(tensor.untyped_storage()._cdata)


def total_bytes(saved: Mapping[int, Tensor], without: Collection[int] = ()) -> int:
    """Bytes of recorded storages, but for those with one of the keys in ``without``."""
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in without)
