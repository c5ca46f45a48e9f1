"""``spf-lite memory``: what a step or a whole run takes on a card, counted without running it."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from spf_lite.cli.output import save_text

if TYPE_CHECKING:
    from spf_lite.profiling.cards import Card

logger = logging.getLogger("spf_lite")

#: Kinds of training step as options, and their names in :data:`spf_lite.profiling.memory.VARIANTS`.
STEPS = {
    "plain": "plain LoRA",
    "dual": "dual path",
    "enhancement": "dual path, enhancement",
    "two-models": "two models",
}
#: What ``--mixed-precision`` computes in; None: no autocast.
COMPUTE = {"no": None, "fp16": "float16", "bf16": "bfloat16"}
#: Options of a single step, which a recipe says by itself, and their values if they are not given.
STEP_ALONE: dict[str, Any] = {
    "step": "dual",
    "batch_size": 1,
    "mixed_precision": "fp16",
    "gradient_checkpointing": False,
    "save": None,
}


def memory(options: Namespace) -> int:
    """Exit status 1 if a card was named that is too small.

    Raises:
        ValueError: if options make no sense together.
    """
    if options.method is not None:
        return _run(options)
    if options.changes:
        raise ValueError("--set changes a recipe: name one with --method")
    return _step(options)


def _step(options: Namespace) -> int:
    import spf_lite
    from spf_lite.profiling.counted import count_step

    step, batch_size, precision, checkpointing, save = (
        default if (given := getattr(options, name)) is None else given for name, default in STEP_ALONE.items()
    )
    counted = count_step(
        options.shape,
        spf_lite.load("tiny"),
        STEPS[step],
        options.pixels,
        options.dtype,
        COMPUTE[precision],
        checkpointing,
    )
    _list(counted.memory.parts(batch_size))
    total = counted.memory.total(batch_size)
    logger.info("%-28s %6.2f GB, batch size %d, %d pixels", "sum", total / 1e9, batch_size, counted.pixels)
    if save:
        save_text(save, counted.to_json())
    return _compared(total, options.card)


def _run(options: Namespace) -> int:
    import torch

    import spf_lite
    from spf_lite.profiling.arithmetic import run_arithmetic
    from spf_lite.profiling.moments import run_moments, run_on_meta

    if given := [name for name in STEP_ALONE if getattr(options, name) is not None]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{names} cannot be combined with --method: change the recipe with --set")
    config = spf_lite.recipe(options.method).changed(options.changes)
    backbone = run_on_meta(options.shape, spf_lite.load("tiny"), config, getattr(torch, options.dtype))
    pixels = options.pixels or backbone.side * backbone.pipe.vae_scale_factor
    moments = run_moments(backbone, config, pixels)
    for moment in moments:
        portraits = f"{moment.together} portrait{'s' * (moment.together > 1)} at a time"
        logger.info("%s, %s", moment.name, portraits)
        _list(moment.parts, "  ")
        logger.info("  %-28s %6.2f GB", "sum", moment.total / 1e9)
    largest = max(moments, key=lambda moment: moment.total)
    logger.info("largest moment: %s, %.2f GB at %d pixels", largest.name, largest.total / 1e9, pixels)
    counted = run_arithmetic(backbone, config, pixels)
    logger.info("%d steps of %.1f TFLOP", counted.steps, counted.step / 1e12)
    if counted.portraits:
        logger.info("at most %d portraits to paint, %.1f TFLOP each", counted.portraits, counted.portrait / 1e12)
    if options.card is not None and options.card.peak is not None:
        minutes = [options.card.seconds(each) / 60 for each in (counted.training, counted.painting)]
        logger.info("on a %s about %.0f minutes for the steps, %.0f to paint (estimated)", options.card.name, *minutes)
    return _compared(largest.total, options.card)


def _list(parts: dict[str, int], indent: str = "") -> None:
    for cause, size in parts.items():
        logger.info("%s%-28s %6.2f GB", indent, cause, size / 1e9)


def _compared(total: int, card: Card | None) -> int:
    if card is None:
        return 0
    enough = total < card.gigabytes * 1e9
    logger.info("%s is %s", card, "enough" if enough else "too small")
    return int(not enough)
