"""Peak of what is alive at once in a pass that saves nothing for backward: sampling, encoding, decoding.

Autograd's hooks (:mod:`spf_lite.profiling.saved`) show what waits for the backward pass. Without one, tensors come and
go, and the largest moment decides.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spf_lite.profiling.saved import storage_key


class LivePeak(TorchDispatchMode):
    """Within the context, follows the memory of all tensors that operations make.

    Each storage counts once, from the operation that made it until Python lets go of it. Temporary tensors within one
    operation are not seen.

    Args:
        without: keys of storages that are not counted (:func:`spf_lite.profiling.saved.storage_key`), such as those of
            weights.

    Attributes:
        now: bytes that are alive.
        peak: the most that was alive at once, in bytes.
    """

    def __init__(self, without: Collection[int] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = set(without)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        # What goes in may lie in a storage that was made before the context: a view of it is nothing new.
        given = {storage_key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and (key := storage_key(tensor)) not in self._seen | given:
                storage = tensor.untyped_storage()
                size = storage.nbytes()
                self._seen.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, key, size)
        return results

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
