"""What ``spf-lite measure`` does without a target of the tiny world: it audits anyone's LoRA on anyone's model."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spf_lite.cli.models import load_model
from spf_lite.cli.output import save_text

if TYPE_CHECKING:
    from spf_lite.audit.measures.comparisons import Comparison
    from spf_lite.models.backbone import Backbone

logger = logging.getLogger("spf_lite")

#: Options of an audit alone, and their values if they are not given.
AUDIT_ALONE: Mapping[str, Any] = {
    "texts": None,
    "target_text": None,
    "replaces": None,
    "strengths": None,
    "steps": None,
    "guidance_scale": None,
    "dtype": None,
    "mask": None,
    "clip": None,
    "lpips": False,
    "dino": None,
    "identity": False,
    "age": False,
    "expression": False,
    "html": None,
    "fail_above": [],
    "fail_below": [],
}


def check_options(options: Namespace) -> None:
    """Refuse options that belong to the other kind of measuring.

    Raises:
        ValueError: if there are some; the message names them.
    """
    given = [name for name, default in AUDIT_ALONE.items() if getattr(options, name) != default]
    if options.target and given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{names} cannot be combined with the target {options.target!r} of the tiny world: leave it out"
        )
    if not options.target and options.custom_set:
        raise ValueError("--custom-set needs a target of the tiny world")
    if options.replaces and not options.target_text:
        raise ValueError("--replaces needs --target-text, which takes the place of the phrase")


def audit(options: Namespace) -> int:
    """Exit status 1 when a measure is above or below its limit."""
    import torch

    from spf_lite.audit.auditing import audit
    from spf_lite.audit.limits import above, below, check_limits
    from spf_lite.audit.measures.regions import read_masks
    from spf_lite.audit.measuring import measures_taken
    from spf_lite.audit.page.document import audit_page
    from spf_lite.audit.prompts import completed, default_prompts, read_prompts
    from spf_lite.models.adapters.lora import load_adapter

    highest, lowest = dict(options.fail_above), dict(options.fail_below)
    given = read_prompts(options.texts) if options.texts else None
    backbone = load_model(options, dtype=getattr(torch, options.dtype or "float32"))
    if options.clip:
        backbone.spec = replace(backbone.spec, clip=options.clip)
    load_adapter(backbone, options.adapter, options.strength)  # first: whether it fits is known in a second
    shipped, unrelated = default_prompts(backbone, options.target_text)
    prompts = given or shipped
    if options.prompts is not None and options.prompts > len(prompts):
        raise ValueError(f"--prompts {options.prompts}: there are {len(prompts)} texts")
    prompts = completed(backbone, prompts[: options.prompts], options.target_text, options.replaces)
    masks = read_masks(options.mask, len(prompts)) if options.mask else None
    complete = prompts[0].complete_text is not None
    if masks is not None and not complete:
        raise ValueError("--mask needs complete texts: give --target-text, too")
    comparisons = _comparisons(options, backbone)
    names = [comparison.measure for comparison in comparisons]
    check_limits(
        [*highest, *lowest], measures_taken(complete, options.target_text is not None, masks is not None, names)
    )
    result = audit(
        backbone,
        options.adapter,
        prompts,
        unrelated,
        target_text=options.target_text,
        strength=options.strength,
        strengths=options.strengths or (),
        steps=options.steps or 25,
        guidance_scale=options.guidance_scale,
        masks=masks,
        comparisons=comparisons,
        on_progress=lambda done, whole: logger.info("measured %d of %d prompts", done, whole),
    )
    for line in str(result.report).splitlines():
        logger.info("%s", line)
    if options.save:
        save_text(options.save, result.report.to_json())
    if options.html:
        save_text(options.html, audit_page(result.report, result.cases))
    failed = above(result.report, highest) + below(result.report, lowest)
    for line in failed:
        logger.info("%s", line)
    return 1 if failed else 0


def _comparisons(options: Namespace, backbone: Backbone) -> list[Comparison]:
    """The further measures that were asked for, loaded."""
    from spf_lite.audit.measures.ages import Age
    from spf_lite.audit.measures.comparisons import Dino, Lpips
    from spf_lite.audit.measures.expressions import Expression
    from spf_lite.audit.measures.faces import Identity

    device = backbone.network.device
    found: list[Comparison] = []
    if options.lpips:
        found.append(Lpips.load(device))
    if options.dino:
        found.append(Dino.load(options.dino, device))
    if options.identity:
        found.append(Identity.load())
    if options.age:
        found.append(Age.load())
    if options.expression:
        found.append(Expression.load())
    return found


def agreement(options: Namespace) -> int:
    """A table of rank correlations for each target with enough adapters."""
    import spf_lite
    from spf_lite.audit.agreement import audit_all, table

    found = audit_all(
        spf_lite.load("tiny"),
        options.adapters,
        options.kept,
        options.prompts,
        options.steps,
        on_adapter=lambda one: logger.info("audited %s of %s", one.adapter, one.target),
    )
    for target in sorted({one.target for one in found}):
        for line in table(found, target):
            logger.info("%s", line)
    return 0
