"""One attribute after another: after each stage, what is left of the earlier ones, and what else has changed.

A chain of stages learns one target after the other, each on top of the adapters of the former stages, with the base
model and its earlier attributes as the reference. Pollution "prevents incremental learning" (SPF-Portrait, arXiv
2504.00396, abstract): each stage pollutes the model that the next one begins with. Here it is counted. Beside it,
composition: targets that were learned separately, each on the base model, and added up.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.benchmark import set_folder
from spf_lite.evaluation.judge import head_of, load_judge
from spf_lite.evaluation.measuring import EvaluationSet, sample_evaluation_set
from spf_lite.evaluation.rows import set_name
from spf_lite.evaluation.stages import PLAIN_TEXTS, Stage, measured_stage
from spf_lite.files import write_file
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.adapters.stack import load_stack
from spf_lite.models.backbone import load
from spf_lite.tiny_world.custom_sets import excluded_phrases
from spf_lite.training.recipes import recipe, slug
from spf_lite.training.trainer import DualPathTrainer

#: Three orders of five targets that one portrait can show together.
ORDERS: tuple[tuple[str, ...], ...] = (
    ("sunglasses", "beard", "blazer", "winter-hat", "pink-hair"),
    ("pink-hair", "winter-hat", "blazer", "beard", "sunglasses"),
    ("blazer", "pink-hair", "sunglasses", "winter-hat", "beard"),
)
STAGE_FILE, RUN_FILE = "stage.json", "chain.json"


def check_order(targets: Sequence[str]) -> None:
    """Check that targets can be learned one after another and shown together.

    Raises:
        ValueError: for no target, an unknown one, one twice, or two that exclude each other.
    """
    if not targets:
        raise ValueError("no targets: at least one is needed")
    heads = [head_of(target) for target in targets]
    for number, (target, head) in enumerate(zip(targets, heads, strict=True)):
        if head in heads[:number]:
            other = targets[heads.index(head)]
            raise ValueError(f"{target} cannot follow {other}: a portrait shows one of them")


def run_chain(
    method: str,
    targets: Sequence[str],
    seed: int,
    folder: Path,
    evaluation_sets: Mapping[str, EvaluationSet],
    separately: bool = False,
    on_stage: Callable[[Stage], None] | None = None,
) -> list[Stage]:
    """Learn targets one after another and measure after each. Whatever exists already is kept.

    Args:
        method: name of the recipe of every stage.
        targets: in their order.
        seed: of the runs, and of the draw of every custom set's spurious attributes.
        folder: of the benchmark. The chain lies in ``folder/<method>/<targets>-<seed>``, each stage in a folder of it.
        evaluation_sets: of each target, with portraits of the base model.
        separately: learn each target alone, on the base model, and add the adapters up: what composition is without
            incremental learning.
        on_stage: called after every stage.

    Raises:
        ValueError: for targets that exclude each other, or a folder with a chain of another recipe or with other
            prompts.
    """
    check_order(targets)
    first, later = recipe(method, seed), recipe(method, seed, after=not separately)
    path = chain_folder(folder, method, targets, seed, separately)
    what = {"config": json.loads(first.to_json()), "targets": list(targets), "sets": set_name(seed)}
    what["prompts"] = len(evaluation_sets[targets[0]].seeds)
    if later != first:
        what["later"] = json.loads(later.to_json())
    if (path / RUN_FILE).exists() and _run_of((path / RUN_FILE).read_text(encoding="utf-8")) != what:
        raise ValueError(f"{path} holds a chain of another recipe or with other prompts: choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    write_file(path / RUN_FILE, json.dumps(what, indent=1) + "\n")
    stages: list[Stage] = []
    adapters: list[Path] = []
    for number, target in enumerate(targets):
        run = path / f"{number}-{target}"
        if not (run / "adapter" / ADAPTER_FILE).exists():
            custom = CustomSet.load(set_folder(target, folder, seed), "silent", excludes=excluded_phrases(target))
            config = later if number else first
            trainer = DualPathTrainer(load("tiny"), custom, config, run, after=() if separately else adapters)
            trainer.fit(resume=True)
            trainer.export(run / "adapter")
        adapters.append(run / "adapter")
        if not (run / STAGE_FILE).exists():
            backbone = load("tiny")
            load_stack(backbone, adapters)
            stage = measured_stage(backbone, load_judge(backbone), targets[: number + 1], evaluation_sets)
            write_file(run / STAGE_FILE, stage.to_json())
        stages.append(Stage.from_json((run / STAGE_FILE).read_text(encoding="utf-8")))
        if on_stage:
            on_stage(stages[-1])
    return stages


def chain_folder(folder: Path, method: str, targets: Sequence[str], seed: int, separately: bool = False) -> Path:
    """Where a chain lies: ``folder/<method>/<targets>-<seed>``, or ``folder/<method>-separately/...``."""
    return folder / (slug(method) + ("-separately" if separately else "")) / f"{'-'.join(targets)}-{seed}"


def read_chain(path: Path, targets: Sequence[str]) -> list[Stage]:
    """The measured stages of a chain, in their order; fewer if it was interrupted.

    Args:
        path: of the chain (:func:`chain_folder`).
        targets: in their order.
    """
    files = [path / f"{number}-{target}" / STAGE_FILE for number, target in enumerate(targets)]
    return [Stage.from_json(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def bench_incremental(
    folder: Path,
    methods: Sequence[str] = ("naive", "pure-pairs"),
    orders: Sequence[Sequence[str]] = ORDERS,
    seeds: Sequence[int] = (0, 1, 2),
    prompts: int = 32,
    separately: bool = False,
) -> list[str]:
    """Run every chain and return the lines of a table: of each, the measures after every stage.

    Args:
        folder: of the chains; what it holds of this benchmark is kept.
        methods: names of recipes.
        orders: of the targets.
        seeds: of the runs.
        prompts: on how many people each target is measured.
        separately: as in :func:`run_chain`.

    Raises:
        ValueError: for an unknown method or target, targets that exclude each other, or no prompts, before any
            training.
    """
    for method in methods:
        recipe(method)
    for targets in orders:
        check_order(targets)
    names = sorted({target for targets in orders for target in targets})
    evaluation_sets = {target: sample_evaluation_set(load("tiny"), target, prompts) for target in names}
    heads = ["method", "order", "seed", "stage", "found", "pure", "together", "unasked"]
    heads += [f"flips, {kind}" for kind in PLAIN_TEXTS]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in methods:
        for targets in orders:
            for seed in seeds:
                stages = run_chain(method, targets, seed, folder, evaluation_sets, separately)
                lines += [f"| {method} | {orders.index(targets)} | {seed} | {_cells(stage)} |" for stage in stages]
    return lines


def _run_of(text: str) -> dict[str, Any]:
    """What the file of a chain says; options that its version did not have get their defaults."""
    what: dict[str, Any] = json.loads(text)
    configs = {name: TrainConfig.from_json(json.dumps(what[name])) for name in ("config", "later") if name in what}
    return {**what, **{name: json.loads(config.to_json()) for name, config in configs.items()}}


def _cells(stage: Stage) -> str:
    """The last cells of a line: means over the targets so far, and over the prompts."""
    means = [np.mean(list(of.values())) for of in (stage.found, stage.pure, stage.together)]
    numbers = [*means, np.mean(stage.unasked), *(np.mean(stage.flips[kind]) for kind in PLAIN_TEXTS)]
    return f"{len(stage.learned)} {stage.learned[-1]} | " + " | ".join(f"{number:.3f}" for number in numbers)
