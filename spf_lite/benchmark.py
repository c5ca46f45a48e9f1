"""Methods against each other on one target: same data, same steps, same seeds; one row per (method, seed),
resumable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spf_lite.data import CustomSet
from spf_lite.export import add_measures
from spf_lite.metrics import Estimate
from spf_lite.pipelines import ADAPTER_FILE, load, load_adapter
from spf_lite.report import PollutionReport, Portraits, estimates, evaluation_set, load_judge, measure
from spf_lite.samples import SAMPLES

DATA = SAMPLES
#: The columns of a table, in this order.
COLUMNS = (
    "target found", "CLIP-T", "flip rate", "bias pick-up", "leakage", "CLIP-I", "identity", "segmentation",
    "over-alignment", "reconstruction", "unasked",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method on one target, one training seed: its report, and how long training took."""

    method: str
    target: str
    seed: int
    report: PollutionReport
    seconds: float

    def to_json(self) -> str:
        """For a file; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Row:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "report": PollutionReport(**values["report"])})


def train_row(method: str, target: str, seed: int, folder: Path, captions: str) -> Path:
    """Train one adapter in ``folder/<target>/<method>-<seed>``, or take it up where it was; returns its folder."""
    from spf_lite.methods import recipe
    from spf_lite.training import DualPathTrainer

    path = folder / target / f"{method}-{seed}"
    if not (path / "adapter" / ADAPTER_FILE).exists():
        custom = CustomSet.load(DATA / "custom" / target, captions)
        trainer = DualPathTrainer(load("tiny"), custom, recipe(method, seed=seed), path)
        result = trainer.fit(resume=True)
        (path / "seconds.json").write_text(json.dumps(result.seconds))
        trainer.export(path / "adapter")
    return path


def measure_row(method: str, seed: int, path: Path, portraits: Portraits) -> Row:
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
    seconds = json.loads((path / "seconds.json").read_text())
    row = Row(method, portraits.target, seed, report, seconds)
    done.write_text(row.to_json())
    return row


def read_rows(folder: Path, target: str, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Row]]:
    """The rows that are there already, by method."""
    found: dict[str, list[Row]] = {}
    for method in methods:
        paths = [folder / target / f"{method}-{seed}" / "row.json" for seed in seeds]
        rows = [Row.from_json(path.read_text()) for path in paths if path.exists()]
        if rows:
            found[method] = rows
    return found


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Every measure of one method: means over prompts and seeds with bootstrap intervals over both."""
    return estimates([row.report for row in rows])


def table(rows: dict[str, list[Row]]) -> list[str]:
    """The lines of a table in Markdown: one row per method, mean and interval in every cell."""
    if not rows:
        return []
    numbers = {method: summary(of) for method, of in rows.items()}
    columns = [name for name in COLUMNS if any(name in row for row in numbers.values())]
    lines = [
        "| method | seeds | " + " | ".join(columns) + " | training |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for method, of in rows.items():
        cells = [str(numbers[method].get(name, "")) for name in columns]
        seconds = sum(row.seconds for row in of) / len(of)
        lines.append(f"| {method} | {len(of)} | " + " | ".join(cells) + f" | {seconds:.0f} s |")
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
        ValueError: for an unknown target or method, or no prompts, before any training.
    """
    from spf_lite.methods import recipe

    for method in methods:
        recipe(method)
    portraits = evaluation_set(load("tiny"), target, prompts)
    rows: dict[str, list[Row]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            path = train_row(method, target, seed, folder, captions)
            rows[method].append(measure_row(method, seed, path, portraits))
    return table(rows)
