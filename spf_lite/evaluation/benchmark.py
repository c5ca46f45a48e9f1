"""Recipes compared on one target: the same data, steps, seeds and prompts. Whatever exists already is kept.

A recipe that was chosen on one custom set may suit that set's spurious attributes only. So each training seed has a
custom set of its own, with spurious attributes drawn by that seed, and an interval over seeds is one over sets, too.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import load_judge
from spf_lite.evaluation.measuring import EvaluationSet, measure_on, sample_evaluation_sets
from spf_lite.evaluation.report import measures_of
from spf_lite.evaluation.rows import ROW_FILE, Row, run_folder, set_name, table
from spf_lite.files import UNFINISHED, read_text, write_file, write_files
from spf_lite.models.adapters.lora import ADAPTER_FILE, load_adapter
from spf_lite.models.backbone import load
from spf_lite.paths import CAPTION_FILES, DATA_SAMPLES
from spf_lite.tiny_world.custom_sets import SetNote, spurious_attributes, write_custom_set
from spf_lite.training.recipes import recipe
from spf_lite.training.run.export import add_measures
from spf_lite.training.trainer import DualPathTrainer

CAPTIONS_FILE = "captions.txt"
#: Which set a run was trained on: ``the shipped set`` or ``the set of draw 3``.
SET_FILE = "set.txt"
#: What ``confounders=`` may be: the shipped custom set for every seed, or one drawn by each seed.
CONFOUNDERS = ("shipped", "drawn")


def _refuse_other(path: Path, config: TrainConfig, captions: str, confounders: int | None) -> None:
    """Raise ValueError if the folder holds a run with another configuration, other captions, or on another set."""
    saved, read = path / "config.json", path / CAPTIONS_FILE
    if saved.exists() and TrainConfig.from_json(saved.read_text(encoding="utf-8")) != config:
        raise ValueError(f"{path} holds a run of another recipe: choose another folder, or delete it")
    if read.exists() and read.read_text(encoding="utf-8").strip() != captions:
        raise ValueError(
            f"{path} holds a run with {read.read_text(encoding='utf-8').strip()} captions: choose another folder"
        )
    held = _held_set(path)
    if held not in (None, set_name(confounders)):
        raise ValueError(f"{path} holds a run on {held}, not on {set_name(confounders)}: choose another folder")


def _held_set(path: Path) -> str | None:
    """The set of the run that a folder holds; None if it holds none. Runs from before there were draws do not say."""
    if (path / ROW_FILE).exists():
        return set_name(Row.from_json(read_text(path / ROW_FILE)).confounders)
    if (path / SET_FILE).exists():
        return read_text(path / SET_FILE).strip()
    return set_name(None) if (path / CAPTIONS_FILE).exists() else None


def _drawn_folder(folder: Path, target: str, confounders: int) -> Path:
    """Where a drawn set lies, or will lie.

    Raises:
        ValueError: if something else lies there.
    """
    path, note = folder / target / f"set-{confounders}", SetNote.of(target, confounders)
    if path.exists() and SetNote.read(path) != note:
        raise ValueError(f"{path} holds another custom set than {set_name(confounders)}: choose another folder")
    return path


def set_folder(target: str, folder: Path, confounders: int | None = None) -> Path:
    """The folder of a custom set: the shipped one, or a drawn one, which is rendered when it is not there yet.

    Args:
        target: name of the target.
        folder: of the comparison; drawn sets lie in ``folder/<target>/set-<seed of the draw>``.
        confounders: seed of the draw; None for the shipped set.

    Raises:
        ValueError: if something else lies there, or for an unknown target.
    """
    if confounders is None:
        return DATA_SAMPLES / "custom" / target
    path = _drawn_folder(folder, target, confounders)
    if not path.exists():
        beside = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
        try:
            write_custom_set(target, beside, confounders=confounders)
            beside.rename(path)  # a set that is there is whole
        except OSError:
            if not path.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return path


def train_row(method: str, target: str, seed: int, folder: Path, captions: str, confounders: int | None = None) -> Path:
    """Train one adapter in its :func:`~spf_lite.evaluation.rows.run_folder`, or resume an interrupted run.

    Args:
        method: name of the recipe.
        target: name of the target.
        seed: of the run.
        folder: of the comparison.
        captions: ``silent`` or ``named``.
        confounders: seed of the draw of the spurious attributes; None for the shipped set.

    Returns:
        The folder of the run; the adapter is in its ``adapter/``.

    Raises:
        ValueError: if the folder holds a run of another recipe, with other captions, or on another set.
    """
    path, config = run_folder(folder, target, method, seed), recipe(method, seed=seed)
    _refuse_other(path, config, captions, confounders)
    if not (path / "adapter" / ADAPTER_FILE).exists():
        custom = CustomSet.load(set_folder(target, folder, confounders), captions)
        trainer = DualPathTrainer(load("tiny"), custom, config, path)
        path.mkdir(parents=True, exist_ok=True)
        # The set first: a folder with captions alone is read as a run on the shipped set.
        write_files({path / SET_FILE: set_name(confounders) + "\n", path / CAPTIONS_FILE: captions + "\n"})
        trainer.fit(resume=True)
        trainer.export(path / "adapter")
    return path


def measure_row(
    method: str, seed: int, path: Path, evaluation_sets: Sequence[EvaluationSet], confounders: int | None = None
) -> Row:
    """Load the exported adapter of a run, as any user would, and measure it.

    A row that exists is kept if it has as many prompts and no measure is missing.

    Args:
        method: name of the recipe.
        seed: of the training run.
        path: from :func:`train_row`.
        evaluation_sets: people that all runs are measured on, one set for each text form, all of one target.
        confounders: of the run's custom set; bias pick-up counts the spurious attributes of that set.
    """
    done = path / ROW_FILE
    if done.exists():
        row = Row.from_json(done.read_text(encoding="utf-8"))
        wanted = [name for of in evaluation_sets for name in measures_of(of.form)]
        complete = row.report.prompts == len(evaluation_sets[0].seeds) and row.report.values.keys() >= set(wanted)
        if complete and row.confounders == confounders:
            return row
    backbone = load("tiny")
    load_adapter(backbone.pipe, path / "adapter")
    spurious = spurious_attributes(evaluation_sets[0].target, confounders)
    report = measure_on(backbone, load_judge(backbone, evaluation_sets[0].target), evaluation_sets, spurious=spurious)
    add_measures(path / "adapter", {name: str(value) for name, value in report.estimates().items()})
    row = Row(method, report.target, seed, report, confounders)
    write_file(done, row.to_json())
    return row


def compare_methods(
    target: str,
    folder: Path,
    methods: Sequence[str] = ("naive", "pure-pairs"),
    prompts: int = 64,
    seeds: Sequence[int] = (0, 1, 2),
    captions: str = "silent",
    confounders: str = "drawn",
) -> list[str]:
    """Train and measure every method with every seed, and return the lines of the table.

    Args:
        target: name of the target.
        folder: for the runs; what it holds of this comparison is kept.
        methods: names for :func:`spf_lite.training.recipes.recipe`.
        prompts: on how many people each run is measured.
        seeds: of the training runs.
        captions: ``silent`` about the spurious attributes of the custom set, or with all attributes ``named``.
        confounders: ``drawn``: the runs of seed s are trained on a custom set whose spurious attributes are draw s;
            ``shipped``: all runs are trained on the set that ships, on which the recipes were chosen.

    Raises:
        ValueError: for an unknown target or method, no prompts, or a folder with runs of other recipes, captions or
            sets, before any training.
    """
    if confounders not in CONFOUNDERS:
        raise ValueError(f"confounders={confounders!r}: expected one of {', '.join(CONFOUNDERS)}")
    if captions not in CAPTION_FILES:
        raise ValueError(f"captions={captions!r}: expected one of {', '.join(CAPTION_FILES)}")
    draws = {seed: seed if confounders == "drawn" else None for seed in seeds}
    for seed, draw in draws.items():
        for method in methods:
            _refuse_other(run_folder(folder, target, method, seed), recipe(method, seed=seed), captions, draw)
        if draw is not None:
            _drawn_folder(folder, target, draw)
    evaluation_sets = sample_evaluation_sets(load("tiny"), target, prompts)
    rows: dict[str, list[Row]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            path = train_row(method, target, seed, folder, captions, draws[seed])
            rows[method].append(measure_row(method, seed, path, evaluation_sets, draws[seed]))
    return table(rows)
