"""What the commands that measure something do: read the options, call the library, say what came of it."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from spf_lite.cli.auditing import audit, check_options
from spf_lite.cli.models import load_model
from spf_lite.cli.output import save_text

logger = logging.getLogger("spf_lite")


def measure(options: Namespace) -> int:
    """With a target of the tiny world by its judge, else :func:`spf_lite.cli.auditing.audit`."""
    check_options(options)
    return _measure_by_judge(options) if options.target else audit(options)


def _measure_by_judge(options: Namespace) -> int:
    """Also writes the measures into the adapter's model card, if it has one and was measured at full strength."""
    from spf_lite.evaluation.drift import drifted_words, in_words
    from spf_lite.evaluation.judge import load_judge
    from spf_lite.evaluation.measuring import measure_on, sample_evaluation_sets
    from spf_lite.models.adapters.lora import load_adapter
    from spf_lite.tiny_world.custom_sets import SetNote
    from spf_lite.training.run.export import CARD, add_measures

    note = SetNote.read(options.custom_set) if options.custom_set else SetNote.of(options.target)
    if note.target != options.target:
        raise ValueError(f"{options.custom_set} is a custom set of {note.target}, not of {options.target}")
    backbone = load_model(options)
    judge = load_judge(backbone)
    load_adapter(backbone.pipe, options.adapter, options.strength)  # first: whether it fits is known in a second
    evaluation_sets = sample_evaluation_sets(backbone, options.target, options.prompts or 64)
    report = measure_on(backbone, judge, evaluation_sets, spurious=note.spurious)
    for line in str(report).splitlines():
        logger.info("%s", line)
    logger.info("words whose portraits moved most at base text: %s", in_words(drifted_words([report])))
    if options.strength == 1 and (options.adapter / CARD).exists():
        add_measures(options.adapter, {name: str(value) for name, value in report.estimates().items()})
    if options.save:
        save_text(options.save, report.to_json())
    return 0


def compare(options: Namespace) -> int:
    from spf_lite.evaluation.benchmark import compare_methods
    from spf_lite.training.recipes import slug

    table = compare_methods(
        options.target,
        options.output,
        methods=options.methods,
        prompts=options.prompts,
        seeds=options.seeds,
        captions=options.captions,
        confounders=options.confounders,
    )
    for row in table:
        logger.info("%s", row)
    if options.save:
        save_text(options.save, "\n".join(table) + "\n")
    if options.pictures:
        folder, seed = options.output / options.target, options.seeds[0]
        adapters = {method: folder / f"{slug(method)}-{seed}" / "adapter" for method in options.methods}
        _paint(options.target, adapters, 5, options.pictures)
    return 0


def incremental(options: Namespace) -> int:
    from spf_lite.evaluation.incremental import ORDERS, bench_incremental

    orders = options.targets or ORDERS
    table = bench_incremental(
        options.output, options.methods, orders, options.seeds, options.prompts, options.separately
    )
    for row in table:
        logger.info("%s", row)
    if options.save:
        save_text(options.save, "\n".join(table) + "\n")
    return 0


def paint(options: Namespace) -> int:
    """The same people by the base model and each adapter; unrelated changes are outlined and named."""
    names = [path.name for path in options.adapters]
    # Two folders of one name would be one row.
    rows = {path.name if names.count(path.name) == 1 else str(path): path for path in options.adapters}
    _paint(options.target, rows, options.people, options.output, options.strength)
    return 0


def _paint(target: str, adapters: dict[str, Path], people: int, output: Path, strength: float = 1.0) -> None:
    import spf_lite
    from spf_lite.evaluation.judge import load_judge
    from spf_lite.evaluation.portraits import sampled_portraits, unrelated_changes
    from spf_lite.viz.plots import portrait_grid

    rows = sampled_portraits(target, adapters, people, strength)
    changes = unrelated_changes(rows, target, load_judge(spf_lite.load("tiny"), target))
    sheet = portrait_grid(
        list(rows.values()),
        row_labels=list(rows),
        marks=[[", ".join(name.replace("_", " ") for name in found) for found in row] for row in changes.values()],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(output, bbox_inches="tight", metadata={"Software": None})
    logger.info("wrote %s", output)


def cost(options: Namespace) -> int:
    import json

    import torch

    from spf_lite.profiling.cost import measure_costs, to_rows
    from spf_lite.profiling.shape_cost import shape_costs

    if options.model in ("tiny", "sd15-size"):
        costs = measure_costs(options.model, options.rounds)
    else:
        costs = shape_costs(options.model, options.pixels, options.rounds, getattr(torch, options.dtype))
    for line in costs:
        logger.info("%s", line)
    if options.save:
        save_text(options.save, json.dumps(to_rows(costs), indent=1) + "\n")
    return 0
