"""Work is shared between processes, and every one of them gets the same results."""

from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from spf_lite.models.running.shared_work import shared_out
from tests.processes import ended_well, ranks


def squares(log: Path, parts: list[int]) -> None:
    """Share some work, and write down what this process computed and got."""
    rank = PartialState(cpu=True).process_index
    done: list[int] = []

    def square(part: int) -> Tensor:
        done.append(part)
        return torch.tensor([part**2])

    results = torch.cat(shared_out(parts, square)).tolist() if parts else shared_out(parts, square)
    (log / str(rank)).write_text(f"{done} {results}")


def test_each_process_computes_equally_many_parts_and_gets_all(tmp_path: Path) -> None:
    for count, parts in ((3, [5, 6, 7, 8]), (2, [3]), (2, [])):
        children = ranks(squares, tmp_path, parts, output=tmp_path / "said", count=count)
        for child in children:
            ended_well(child, tmp_path / "said")
        for rank in range(count):
            done = parts[rank::count]
            again = parts[-1:] if parts and rank >= len(parts) % count > 0 else []
            assert (tmp_path / str(rank)).read_text() == f"{done + again} {[part**2 for part in parts]}"


def test_one_process_does_all() -> None:
    assert shared_out([1, 2], lambda part: torch.tensor(part)) == [torch.tensor(1), torch.tensor(2)]
