"""What the commands that make something do: read the options, call the library, say what came of it."""

from __future__ import annotations

import logging
from argparse import Namespace
from random import Random

from spf_lite.cli.models import load_model
from spf_lite.cli.output import contact_sheet, save_picture, save_text

logger = logging.getLogger("spf_lite")


def render(options: Namespace) -> int:
    from spf_lite.tiny_world.portraits import random_portrait
    from spf_lite.tiny_world.rendering import render

    rng = Random(options.seed)
    people = [random_portrait(rng) for _ in range(options.count)]
    if options.target:
        people = [portrait.with_targets(options.target) for portrait in people]
    save_picture(contact_sheet([render(portrait, options.size) for portrait in people], 8), options.output)
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
    from spf_lite.evaluation.judge import FINAL_JUDGE
    from spf_lite.pretrain import run

    work = options.work or run.default_work_folder()
    if options.parts_of:
        run.take_parts(options.parts_of, work)
    run.pretrain(options.part, work, options.steps)
    if options.ship:
        others = {FINAL_JUDGE: run.ship_final_judge, run.TRANSFORMER: run.ship_transformer}
        others.get(options.part, run.ship_all)(work, options.ship)
        logger.info("wrote %s", options.ship)
    return 0


def check(options: Namespace) -> int:
    """Exit status 1 when a requirement is missed."""
    from spf_lite.pretrain import check

    backbone = load_model(options)
    look_at = check.check_last_test if options.last_test else check.check_model
    checks = look_at(backbone, options.prompts)
    missed = [line for line in checks if not line.passed]
    table = [*map(str, checks), f"{len(checks) - len(missed)} of {len(checks)} requirements met"]
    for line in table:
        logger.info("%s", line)
    if options.save:
        save_text(options.save, "\n".join(table) + "\n")
    return 1 if missed else 0


def train(options: Namespace) -> int:
    """Also under ``accelerate launch``: the processes share each batch."""
    import torch

    from spf_lite.data.sets.custom_set import CustomSet
    from spf_lite.training.recipes import recipe
    from spf_lite.training.run.checkpoint import check_holds_run
    from spf_lite.training.trainer import DualPathTrainer

    if options.resume or options.extend:
        check_holds_run(options.output)
    config = recipe(options.method, options.seed, after=bool(options.after)).changed(options.changes)
    trainer = DualPathTrainer(
        load_model(options, dtype=getattr(torch, options.dtype), device="cpu" if options.shard else None),
        CustomSet.load(
            options.custom_set,
            options.captions,
            target_text=options.target_text,
            replaces=options.replaces,
            excludes=options.excludes,
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
        latent_cache=options.cache_latents,
        shard=options.shard,
    )
    trainer.fit(resume=options.resume, overwrite=options.overwrite, extend=options.extend)
    trainer.export(options.output / "adapter")
    if trainer.accelerator.is_main_process:
        logger.info("wrote %s", options.output / "adapter")
    trainer.accelerator.end_training()
    return 0


def sample(options: Namespace) -> int:
    import torch

    from spf_lite.models.adapters.stack import load_stack
    from spf_lite.models.running.sampling import sample

    backbone = load_model(options, dtype=getattr(torch, options.dtype))
    if options.adapter:
        load_stack(backbone, options.adapter, options.strength)
    images = sample(
        backbone,
        [options.prompt] * len(options.seeds),
        seeds=options.seeds,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    save_picture(contact_sheet(images, len(images)), options.output)
    return 0


def combine(options: Namespace) -> int:
    from spf_lite.models.adapters.combined_file import write_combined

    network = load_model(options).network
    parts = write_combined(options.output, options.adapters, network, options.strengths, options.without)
    for part in parts:
        logger.info("%s", part)
    logger.info("wrote %s", options.output)
    return 0


def parts(options: Namespace) -> int:
    from spf_lite.models.adapters.combined_file import parts_of
    from spf_lite.models.adapters.lora_file import read_lora

    network = load_model(options).network
    for path in options.adapters:
        for part in parts_of(path, read_lora(path, network)):
            logger.info("%s: %s", path, part)
    return 0


def export_onnx(options: Namespace) -> int:
    from spf_lite.export.folder import export_onnx

    for path in export_onnx(load_model(options, device="cpu"), options.output, dict(options.adapters)):
        logger.info("wrote %s", path)
    return 0
