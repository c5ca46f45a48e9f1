"""Rows of a comparison: one report for each method, target and training seed. Reading them needs no model.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from spf_lite.evaluation.report import MEASURES, PollutionReport, bounds_of, estimates
from spf_lite.evaluation.statistics import Estimate, mean_interval
from spf_lite.training.recipes import slug

#: The columns of a table, in this order.
COLUMNS = tuple(MEASURES)
ROW_FILE = "row.json"


@dataclass(frozen=True)
class Row:
    """The report of one method on one target, after training with one seed."""

    method: str
    target: str
    seed: int
    report: PollutionReport

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Row:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "report": PollutionReport(**values["report"])})


def run_folder(folder: Path, target: str, method: str, seed: int) -> Path:
    """Where a training run and its row lie: ``folder/<target>/<method>-<seed>``."""
    return folder / target / f"{slug(method)}-{seed}"


def read_rows(folder: Path, target: str, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Row]]:
    """Method to its rows, in the order of the seeds; runs that are not there are left out."""
    found: dict[str, list[Row]] = {}
    for method in methods:
        paths = [run_folder(folder, target, method, seed) / ROW_FILE for seed in seeds]
        rows = [Row.from_json(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        if rows:
            found[method] = rows
    return found


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Means of one method's measures, with intervals over its training runs and prompts."""
    return estimates([row.report for row in rows])


def difference(rows: Sequence[Row], others: Sequence[Row], measure: str) -> Estimate:
    """How far one method is above another in a measure, with the interval of the *difference*.

    Runs are paired by seed, portraits by prompt. Whatever a prompt or a seed does to both methods cancels, so the
    interval is narrower than those of the two methods suggest. Seeds and prompts that only one side has are left out,
    and so are runs for which the measure was not taken.

    Args:
        rows: of one method on one target.
        others: of the other, on the same target.
        measure: one of :data:`spf_lite.evaluation.report.MEASURES`.

    Raises:
        ValueError: if the targets differ, or no seed and prompt with that measure is on both sides.
    """
    if len(targets := {row.target for row in (*rows, *others)}) > 1:
        raise ValueError(f"rows of different targets: {', '.join(sorted(targets))}")
    ours, theirs = ({row.seed: row.report.values.get(measure, []) for row in side} for side in (rows, others))
    seeds = [seed for seed in ours if ours[seed] and theirs.get(seed)]
    tables = [[side[seed] for seed in seeds] for side in (ours, theirs)]
    count = min((len(values) for side in tables for values in side), default=0)
    first, second = (np.array([values[:count] for values in side], dtype=np.float64) for side in tables)
    gaps = first - second
    gaps = gaps[:, np.isfinite(gaps).all(axis=0)] if gaps.size else gaps
    if not gaps.size:
        raise ValueError(f"no seed and prompt with {measure!r} on both sides")
    bounds = bounds_of(measure)
    return mean_interval(gaps, bounds and (bounds[0] - bounds[1], bounds[1] - bounds[0]))


def table(rows: Mapping[str, Sequence[Row]], measures: Sequence[str] = COLUMNS) -> list[str]:
    """The lines of a table in Markdown: a line for each method, mean and interval in each cell.

    Args:
        rows: of each method.
        measures: the columns; those that no method has are left out.
    """
    if not rows:
        return []
    numbers = {method: summary(of) for method, of in rows.items()}
    columns = [name for name in measures if any(name in row for row in numbers.values())]
    lines = [
        "| method | seeds | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for method, of in rows.items():
        cells = [str(numbers[method].get(name, "")) for name in columns]
        lines.append(f"| {method} | {len(of)} | " + " | ".join(cells) + " |")
    return lines
