"""Work that the processes of one run share: each computes some of the parts, and all get all results.

Before stage 2 the reference model paints and predicts for minutes. Each process would do the same. The parts and their
order do not depend on the number of processes, so the results do not either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, distributed

Part = TypeVar("Part")


def shared_out(parts: Sequence[Part], compute: Callable[[Part], Tensor]) -> list[Tensor]:
    """The result of every part, in their order.

    All processes of the run must come here with the same parts. With one process this is a loop. Each computes equally
    many, because passes through a sharded network are joint ones (:mod:`spf_lite.models.running.sharding`): one that
    would be done sooner computes the last part again.

    Args:
        parts: N, what to compute; process r of R computes the parts r, r + R, ...
        compute: from a part to a tensor in main memory.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [compute(part) for part in parts]
    rank, count = distributed.get_rank(), distributed.get_world_size()
    numbers = [min(first + rank, len(parts) - 1) for first in range(0, len(parts), count)]
    own = {number: compute(parts[number]) for number in numbers}
    gathered: list[Any] = [None] * count
    distributed.all_gather_object(gathered, own)
    results: dict[int, Tensor] = {number: result for each in gathered for number, result in each.items()}
    return [results[number] for number in range(len(parts))]
