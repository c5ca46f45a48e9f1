"""Recipes compared on one target: the same data, steps, seeds and prompts. Whatever exists already is kept.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spf_lite.config import TrainConfig
from spf_lite.data.custom_set import CustomSet
from spf_lite.evaluation.judge import load_judge
from spf_lite.evaluation.measuring import EvaluationSet, measure_on, sample_evaluation_sets
from spf_lite.evaluation.report import measures_of
from spf_lite.evaluation.rows import ROW_FILE, Row, run_folder, table
from spf_lite.files import write_file
from spf_lite.models.adapters.lora import ADAPTER_FILE, load_adapter
from spf_lite.models.backbone import load
from spf_lite.paths import DATA_SAMPLES
from spf_lite.training.recipes import recipe
from spf_lite.training.run.export import add_measures
from spf_lite.training.trainer import DualPathTrainer

CAPTIONS_FILE = "captions.txt"


def _refuse_other(path: Path, config: TrainConfig, captions: str) -> None:
    """Raise ValueError if the folder holds a run with another configuration or other captions."""
    saved, read = path / "config.json", path / CAPTIONS_FILE
    if saved.exists() and TrainConfig.from_json(saved.read_text(encoding="utf-8")) != config:
        raise ValueError(f"{path} holds a run of another recipe: choose another folder, or delete it")
    if read.exists() and read.read_text(encoding="utf-8").strip() != captions:
        raise ValueError(
            f"{path} holds a run with {read.read_text(encoding='utf-8').strip()} captions: choose another folder"
        )


def train_row(method: str, target: str, seed: int, folder: Path, captions: str) -> Path:
    """Train one adapter in its :func:`~spf_lite.evaluation.rows.run_folder`, or resume an interrupted run.

    Returns:
        The folder of the run; the adapter is in its ``adapter/``.

    Raises:
        ValueError: if the folder holds a run of another recipe, or with other captions.
    """
    path, config = run_folder(folder, target, method, seed), recipe(method, seed=seed)
    _refuse_other(path, config, captions)
    if not (path / "adapter" / ADAPTER_FILE).exists():
        custom = CustomSet.load(DATA_SAMPLES / "custom" / target, captions)
        trainer = DualPathTrainer(load("tiny"), custom, config, path)
        path.mkdir(parents=True, exist_ok=True)
        write_file(path / CAPTIONS_FILE, captions + "\n")
        trainer.fit(resume=True)
        trainer.export(path / "adapter")
    return path


def measure_row(method: str, seed: int, path: Path, evaluation_sets: Sequence[EvaluationSet]) -> Row:
    """Load the exported adapter of a run, as any user would, and measure it.

    A row that exists is kept if it has as many prompts and no measure is missing.

    Args:
        method: name of the recipe.
        seed: of the training run.
        path: folder of the run.
        evaluation_sets: one for each text form, all of one target.
    """
    done = path / ROW_FILE
    if done.exists():
        row = Row.from_json(done.read_text(encoding="utf-8"))
        wanted = [name for of in evaluation_sets for name in measures_of(of.form)]
        if row.report.prompts == len(evaluation_sets[0].seeds) and row.report.values.keys() >= set(wanted):
            return row
    backbone = load("tiny")
    load_adapter(backbone.pipe, path / "adapter")
    report = measure_on(backbone, load_judge(backbone), evaluation_sets)
    add_measures(path / "adapter", {name: str(value) for name, value in report.estimates().items()})
    row = Row(method, report.target, seed, report)
    write_file(done, row.to_json())
    return row


def compare_methods(
    target: str,
    folder: Path,
    methods: Sequence[str] = ("naive", "spf"),
    prompts: int = 64,
    seeds: Sequence[int] = (0, 1, 2),
    captions: str = "silent",
) -> list[str]:
    """Train and measure every method with every seed, and return the lines of the table.

    Args:
        target: name of the target.
        folder: for the runs; what it holds of this comparison is kept.
        methods: names for :func:`spf_lite.training.recipes.recipe`.
        prompts: on how many people each run is measured.
        seeds: of the training runs.
        captions: ``silent`` about the spurious attributes of the custom set, or with all attributes ``named``.

    Raises:
        ValueError: for an unknown target or method, no prompts, or a folder with runs of other recipes or captions,
            before any training.
    """
    for seed in seeds:
        for method in methods:
            _refuse_other(run_folder(folder, target, method, seed), recipe(method, seed=seed), captions)
    evaluation_sets = sample_evaluation_sets(load("tiny"), target, prompts)
    rows: dict[str, list[Row]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            path = train_row(method, target, seed, folder, captions)
            rows[method].append(measure_row(method, seed, path, evaluation_sets))
    return table(rows)
