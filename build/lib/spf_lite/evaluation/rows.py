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


class MixedSetsError(ValueError):
    """Rows of differently confounded custom sets where they would be taken for one; the message names them."""


@dataclass(frozen=True)
class Row:
    """The report of one method on one target, after training with one seed.

    Attributes:
        method: name of the recipe.
        target: name of the target.
        seed: of the training run.
        report: all measures.
        confounders: seed of the draw of the custom set's spurious attributes; None for the shipped set, also in
            files from before there were draws.
    """

    method: str
    target: str
    seed: int
    report: PollutionReport
    confounders: int | None = None

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Row:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "report": PollutionReport(**values["report"])})


def set_name(confounders: int | None) -> str:
    """How messages call a custom set: ``the shipped set`` or ``the set of draw 3``."""
    return "the shipped set" if confounders is None else f"the set of draw {confounders}"


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


def _refuse_mixed(rows: Sequence[Row]) -> None:
    shipped, drawn = (sorted({row.seed for row in rows if (row.confounders is None) is of}) for of in (True, False))
    if shipped and drawn:
        raise MixedSetsError(
            f"rows of {rows[0].method!r} on the shipped custom set (seeds {', '.join(map(str, shipped))}) and on drawn "
            f"ones (seeds {', '.join(map(str, drawn))}): they do not average"
        )


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Means of one method's measures, with intervals over its training runs and prompts.

    Raises:
        MixedSetsError: if some runs were trained on the shipped custom set, others on drawn ones.
    """
    _refuse_mixed(rows)
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
        MixedSetsError: if some runs of a method were trained on the shipped custom set, others on drawn ones, or a
            seed stands for different draws.
    """
    if len(targets := {row.target for row in (*rows, *others)}) > 1:
        raise ValueError(f"rows of different targets: {', '.join(sorted(targets))}")
    for side in (rows, others):
        _refuse_mixed(side)
    sets = {row.seed: row for row in others}
    for one in rows:
        other = sets.get(one.seed, one)
        if one.confounders != other.confounders:
            raise MixedSetsError(
                f"seed {one.seed}: {one.method!r} was trained on {set_name(one.confounders)}, "
                f"{other.method!r} on {set_name(other.confounders)}"
            )
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

    Raises:
        MixedSetsError: if some runs of a method were trained on the shipped custom set, others on drawn ones.
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
