"""What each command of :mod:`spf_lite.cli` does: read the options, call the library, say what came of it."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from random import Random

from PIL import Image

logger = logging.getLogger("spf_lite")


def contact_sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, side by side in rows of ``columns``.

    Raises:
        ValueError: if there are no pictures.
    """
    if not images:
        raise ValueError("there are no portraits to put on a sheet")
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return sheet


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    logger.info("wrote %s", path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    logger.info("wrote %s", path)


def render(options: Namespace) -> int:
    from spf_lite.tiny_world.portraits import random_portrait
    from spf_lite.tiny_world.rendering import render

    rng = Random(options.seed)
    people = [random_portrait(rng) for _ in range(options.count)]
    if options.target:
        people = [portrait.with_targets(options.target) for portrait in people]
    _save(contact_sheet([render(portrait, options.size) for portrait in people], 8), options.output)
    return 0


def custom(options: Namespace) -> int:
    from spf_lite.tiny_world.custom_sets import write_custom_set

    for target in options.targets:
        folder = options.folder if len(options.targets) == 1 else options.folder / target
        write_custom_set(target, folder, confounders=options.confounders)
        logger.info("wrote %s", folder)
    return 0


def pretrain(options: Namespace) -> int:
    """Also under ``torchrun --nproc-per-node 2 -m spf_lite.cli pretrain unet``: two processes share each batch."""
    from spf_lite.pretrain import run

    work = options.work or run.default_work_folder()
    run.pretrain(options.part, work, options.steps)
    if options.ship:
        run.ship_all(work, options.ship)
        logger.info("wrote %s", options.ship)
    return 0


def check(options: Namespace) -> int:
    """Exit status 1 when a requirement is missed."""
    import spf_lite
    from spf_lite.pretrain.check import check_model

    backbone = spf_lite.load(options.model)
    checks = check_model(backbone, options.prompts)
    missed = [line for line in checks if not line.passed]
    table = [*map(str, checks), f"{len(checks) - len(missed)} of {len(checks)} requirements met"]
    for line in table:
        logger.info("%s", line)
    if options.save:
        _write(options.save, "\n".join(table) + "\n")
    return 1 if missed else 0


def train(options: Namespace) -> int:
    """Also under ``accelerate launch``: the processes share each batch."""
    import torch

    import spf_lite
    from spf_lite.data.custom_set import CustomSet
    from spf_lite.training.recipes import recipe
    from spf_lite.training.trainer import DualPathTrainer

    config = recipe(options.method, seed=options.seed).changed(options.changes)
    trainer = DualPathTrainer(
        spf_lite.load(options.model, dtype=getattr(torch, options.dtype)),
        CustomSet.load(
            options.custom_set,
            options.captions,
            target_text=options.target_text,
            replaces=options.replaces,
            repair=options.repair,
            shape=options.shape,
            background=options.background,
            alpha_as_mask=options.alpha_as_mask,
        ),
        config,
        options.output,
        initial_adapter=options.from_adapter,
        after=options.after,
        continued=options.continued,
    )
    trainer.fit(resume=options.resume, overwrite=options.overwrite, extend=options.extend)
    trainer.export(options.output / "adapter")
    if trainer.accelerator.is_main_process:
        logger.info("wrote %s", options.output / "adapter")
    trainer.accelerator.end_training()
    return 0


def sample(options: Namespace) -> int:
    import spf_lite
    from spf_lite.models.adapters.stack import load_stack
    from spf_lite.models.sampling import sample

    backbone = spf_lite.load(options.model)
    if options.adapter:
        load_stack(backbone, options.adapter, options.strength)
    images = sample(
        backbone,
        [options.prompt] * len(options.seeds),
        seeds=options.seeds,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    _save(contact_sheet(images, len(images)), options.output)
    return 0


def combine(options: Namespace) -> int:
    import spf_lite
    from spf_lite.models.adapters.combined_file import write_combined

    unet = spf_lite.load(options.model).pipe.unet
    parts = write_combined(options.output, options.adapters, unet, options.strengths, options.without)
    for part in parts:
        logger.info("%s, strength %g, rank %d", part.name, part.strength, max(part.ranks))
    logger.info("wrote %s", options.output)
    return 0


def parts(options: Namespace) -> int:
    import spf_lite
    from spf_lite.models.adapters.combined_file import parts_of
    from spf_lite.models.adapters.lora_file import read_lora

    unet = spf_lite.load(options.model).pipe.unet
    for path in options.adapters:
        for part in parts_of(path, read_lora(path, unet)):
            logger.info("%s: %s, strength %g, rank %d", path, part.name, part.strength, max(part.ranks))
    return 0


def measure(options: Namespace) -> int:
    """Also writes the measures into the adapter's model card, if it has one and was measured at full strength."""
    import spf_lite
    from spf_lite.evaluation.judge import load_judge
    from spf_lite.evaluation.measuring import measure_on, sample_evaluation_sets
    from spf_lite.models.adapters.lora import load_adapter
    from spf_lite.tiny_world.custom_sets import SetNote
    from spf_lite.training.run.export import CARD, add_measures

    note = SetNote.read(options.custom_set) if options.custom_set else SetNote.of(options.target)
    if note.target != options.target:
        raise ValueError(f"{options.custom_set} is a custom set of {note.target}, not of {options.target}")
    backbone = spf_lite.load(options.model)
    judge = load_judge(backbone)
    load_adapter(backbone.pipe, options.adapter, options.strength)  # first: whether it fits is known in a second
    evaluation_sets = sample_evaluation_sets(backbone, options.target, options.prompts)
    report = measure_on(backbone, judge, evaluation_sets, spurious=note.spurious)
    for line in str(report).splitlines():
        logger.info("%s", line)
    if options.strength == 1 and (options.adapter / CARD).exists():
        add_measures(options.adapter, {name: str(value) for name, value in report.estimates().items()})
    if options.save:
        _write(options.save, report.to_json())
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
        _write(options.save, "\n".join(table) + "\n")
    if options.pictures:
        folder, seed = options.output / options.target, options.seeds[0]
        adapters = {method: folder / f"{slug(method)}-{seed}" / "adapter" for method in options.methods}
        _paint(options.target, adapters, 5, options.pictures)
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
    changes = unrelated_changes(rows, target, load_judge(spf_lite.load("tiny")))
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

    from spf_lite.profiling.cost import measure_costs, to_rows

    costs = measure_costs(options.model, options.rounds)
    for line in costs:
        logger.info("%s", line)
    if options.save:
        _write(options.save, json.dumps(to_rows(costs), indent=1) + "\n")
    return 0
