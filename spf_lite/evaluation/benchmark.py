"""Methods against each other on one target: same data, same steps, same seeds; one row per (method, seed),
resumable.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.data.custom_set import CustomSet
from spf_lite.evaluation.attributes import flips
from spf_lite.evaluation.judge import Judge
from spf_lite.evaluation.report import (
    MEASURES,
    EvaluationSet,
    PollutionReport,
    estimates,
    evaluation_set,
    load_judge,
    measure,
)
from spf_lite.evaluation.statistics import Estimate, bootstrap
from spf_lite.files import write_file
from spf_lite.models.adapters import ADAPTER_FILE, load_adapter
from spf_lite.models.backbone import load
from spf_lite.models.sampling import sample
from spf_lite.paths import DATA_SAMPLES
from spf_lite.training.export import add_measures
from spf_lite.training.recipes import recipe, slug
from spf_lite.training.trainer import DualPathTrainer

#: The columns of a table, in this order.
COLUMNS = tuple(MEASURES)
CAPTIONS = "captions.txt"


@dataclass(frozen=True)
class Row:
    """One method on one target, one training seed, and its report."""

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


def _refuse_other(path: Path, config: TrainConfig, captions: str) -> None:
    """Raise ValueError if the folder holds a run with another configuration or other captions."""
    saved, told = path / "config.json", path / CAPTIONS
    if saved.exists() and TrainConfig.from_json(saved.read_text()) != config:
        raise ValueError(f"{path} holds a run of another recipe: choose another folder, or delete it")
    if told.exists() and told.read_text().strip() != captions:
        raise ValueError(f"{path} holds a run with {told.read_text().strip()} captions: choose another folder")


def train_row(method: str, target: str, seed: int, folder: Path, captions: str) -> Path:
    """Train one adapter in ``folder/<target>/<method>-<seed>``, or take it up where it was; returns its folder.

    Raises:
        ValueError: if that folder holds a run of another recipe, or with other captions.
    """
    path, config = folder / target / f"{slug(method)}-{seed}", recipe(method, seed=seed)
    _refuse_other(path, config, captions)
    if not (path / "adapter" / ADAPTER_FILE).exists():
        custom = CustomSet.load(DATA_SAMPLES / "custom" / target, captions)
        trainer = DualPathTrainer(load("tiny"), custom, config, path)
        path.mkdir(parents=True, exist_ok=True)
        write_file(path / CAPTIONS, captions + "\n")
        trainer.fit(resume=True)
        trainer.export(path / "adapter")
    return path


def measure_row(method: str, seed: int, path: Path, portraits: EvaluationSet) -> Row:
    """Load an exported adapter as any user would, and measure it; a row that exists is kept."""
    done = path / "row.json"
    if done.exists():
        row = Row.from_json(done.read_text())
        if len(row.report.values["target found"]) == len(portraits.seeds):
            return row
    backbone = load("tiny")
    load_adapter(backbone.pipe, path / "adapter")
    report = measure(backbone, load_judge(backbone), portraits)
    add_measures(path / "adapter", {name: str(value) for name, value in report.estimates().items()})
    row = Row(method, portraits.target, seed, report)
    write_file(done, row.to_json())
    return row


def read_rows(folder: Path, target: str, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Row]]:
    """The rows that are there already, by method."""
    found: dict[str, list[Row]] = {}
    for method in methods:
        paths = [folder / target / f"{slug(method)}-{seed}" / "row.json" for seed in seeds]
        rows = [Row.from_json(path.read_text()) for path in paths if path.exists()]
        if rows:
            found[method] = rows
    return found


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Every measure of one method: means over prompts and seeds with bootstrap intervals over both."""
    return estimates([row.report for row in rows])


def difference(rows: Sequence[Row], others: Sequence[Row], measure: str) -> Estimate:
    """How far one method is above another in a measure, with the interval of the *difference*.

    Runs are paired by seed and portraits by prompt, because what one person or one seed does to both methods is no
    difference between them; so this interval is narrower than those of the two methods suggest. Seeds and prompts that
    only one side has are left out.

    Args:
        rows: of one method on one target.
        others: of the other, on the same target.
        measure: one of :data:`spf_lite.evaluation.report.MEASURES`.

    Raises:
        ValueError: if the targets differ, or no seed and prompt with that measure is on both sides.
    """
    if len(targets := {row.target for row in (*rows, *others)}) > 1:
        raise ValueError(f"rows of different targets: {', '.join(sorted(targets))}")
    theirs = {row.seed: row for row in others}
    pairs = [(row, theirs[row.seed]) for row in rows if row.seed in theirs]
    tables = [[pair[side].report.values.get(measure, []) for pair in pairs] for side in (0, 1)]
    count = min((len(values) for side in tables for values in side), default=0)
    a, b = (np.array([values[:count] for values in side], dtype=np.float64) for side in tables)
    gaps = a - b
    gaps = gaps[:, np.isfinite(gaps).all(axis=0)] if gaps.size else gaps
    if not gaps.size:
        raise ValueError(f"no seed and prompt with {measure!r} on both sides")
    return bootstrap(gaps)


def painted(target: str, adapters: Mapping[str, Path], people: int = 5) -> dict[str, list[Image.Image]]:
    """The same people from the same noise, as the base model and each adapter paint them.

    Args:
        target: what the adapters were taught; they are given the complete texts, the base model the base texts.
        adapters: name to folder.
        people: how many.

    Returns:
        Pictures by name, ``base`` first.
    """
    portraits = evaluation_set(load("tiny"), target, people)
    pictures = {"base": portraits.before}
    for name, folder in adapters.items():
        backbone = load("tiny")
        load_adapter(backbone.pipe, folder)
        pictures[name] = sample(backbone, portraits.complete_texts, seeds=portraits.seeds)
    return pictures


def unrelated_changes(
    pictures: Mapping[str, Sequence[Image.Image]], target: str, judge: Judge
) -> dict[str, list[dict[str, tuple[str, str]]]]:
    """What changed in :func:`painted` pictures besides the target, in the judge's eyes.

    Args:
        pictures: by name, ``base`` among them; the same people in the same order.
        target: what was meant to change.
        judge: reads the attributes.

    Returns:
        for each name and picture the attributes that differ from the base model's picture, with both values.
    """
    read = {name: judge.attributes(list(row)) for name, row in pictures.items()}
    return {
        name: [flips(old, new, target) for old, new in zip(read["base"], row, strict=True)]
        for name, row in read.items()
    }


def table(rows: dict[str, list[Row]], measures: Sequence[str] = COLUMNS) -> list[str]:
    """The lines of a table in Markdown: one row per method, mean and interval in every cell.

    Args:
        rows: of each method.
        measures: the columns; those that no row has are left out.
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


def compare_methods(
    target: str,
    folder: Path,
    methods: Sequence[str] = ("naive", "spf"),
    prompts: int = 64,
    seeds: Sequence[int] = (0, 1, 2),
    captions: str = "silent",
) -> list[str]:
    """Train and measure every method with every seed (what exists is kept) and return the lines of the table.

    Raises:
        ValueError: for an unknown target or method, no prompts, or a folder with runs of other recipes or captions,
            before any training.
    """
    for seed in seeds:
        for method in methods:
            _refuse_other(folder / target / f"{slug(method)}-{seed}", recipe(method, seed=seed), captions)
    portraits = evaluation_set(load("tiny"), target, prompts)
    rows: dict[str, list[Row]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            path = train_row(method, target, seed, folder, captions)
            rows[method].append(measure_row(method, seed, path, portraits))
    return table(rows)
