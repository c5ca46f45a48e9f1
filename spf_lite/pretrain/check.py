"""The check of the shipped model: it follows prompts, it does not know the targets, and its judge is accurate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL

from spf_lite.evaluation.judge import HEADS, Judge, load_judge
from spf_lite.evaluation.statistics import Estimate, mean_interval
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample
from spf_lite.pretrain.dataset import MASK_SIZE, Split, portraits_of
from spf_lite.pretrain.judge import accuracy
from spf_lite.tiny_world.custom_sets import evaluation_portraits, unnamed_attributes
from spf_lite.tiny_world.portraits import ATTRIBUTES, FINAL_TARGETS, TARGETS, complete, describe, random_portrait
from spf_lite.tiny_world.rendering import part_mask, render

#: Share of prompts that must be followed, per attribute, for the model to be shipped.
REQUIRED: dict[str, float] = {
    "background": 0.95,
    "clothes_color": 0.95,
    "hair_color": 0.90,
    "skin": 0.90,
    "glasses": 0.90,
    "hair_style": 0.80,
    "expression": 0.80,
}
#: Least accuracy of the judge, per attribute, on held-out renders that the autoencoder reconstructs.
REQUIRED_JUDGE = 0.98
#: The untuned model must show a target that its prompt names less often than this: it has never seen one.
ALLOWED_TARGET = 0.10


@dataclass(frozen=True)
class Check:
    """One line of the table: what was measured, and what is required of it."""

    name: str
    found: Estimate
    required: str
    passed: bool

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "MISSED"
        return f"{self.name:<34} {self.found!s:<24} {self.required:<8} {verdict}"


def prompt_following(
    backbone: Backbone,
    judge: Judge,
    count: int = 256,
    steps: int = 25,
) -> list[Check]:
    """For ``count`` random prompts and fixed seeds: how often the judge finds the attribute that the prompt names."""
    rng = Random("prompts to follow")
    asked = [random_portrait(rng) for _ in range(count)]
    images = sample(backbone, [describe(p) for p in asked], seeds=range(count), steps=steps)
    found = judge.attributes(images)
    checks = []
    for name in (*REQUIRED, *(name for name in ATTRIBUTES if name not in REQUIRED)):
        followed = [seen[name] == getattr(portrait, name) for portrait, seen in zip(asked, found, strict=True)]
        rate = mean_interval(followed)
        least = REQUIRED.get(name, 0.0)
        checks.append(Check(f"follows {name}", rate, f">= {least:.2f}" if least else "", rate.mean >= least))
    return checks


def unseen_targets(
    backbone: Backbone,
    judge: Judge,
    count: int = 64,
    steps: int = 25,
    targets: Iterable[str] = tuple(TARGETS),
) -> list[Check]:
    """For each target, ``count`` prompts that name it: how often the untuned model's portraits show it."""
    checks = []
    for target in targets:
        leave_out = unnamed_attributes(target, "named")
        people = [portrait.with_targets(target) for portrait in evaluation_portraits(target, count)]
        prompts = [complete(portrait, leave_out) for portrait in people]
        images = sample(backbone, prompts, seeds=range(count), steps=steps)
        rate = mean_interval(judge(images).shows(target))
        checks.append(Check(f"shows {target} untuned", rate, f"< {ALLOWED_TARGET:.2f}", rate.mean < ALLOWED_TARGET))
    return checks


def held_out_accuracy(
    autoencoder: AutoencoderKL, judge: Judge, count: int = 1000, split: str = "held-out"
) -> list[Check]:
    """The judge's accuracy on ``count`` held-out renders, encoded and decoded by the autoencoder."""
    people = portraits_of(split, 0)[:count]
    pictures = torch.from_numpy(np.stack([np.asarray(render(portrait)) for portrait in people]))
    masks = np.stack([part_mask(portrait, MASK_SIZE) for portrait in people])
    rates = accuracy(judge, autoencoder, Split(pictures.numpy(), masks, people))
    return [
        Check(f"judge on {name}", Estimate(rate, rate, rate, count), f">= {REQUIRED_JUDGE:.2f}", rate >= REQUIRED_JUDGE)
        if name in HEADS
        else Check(f"judge on {name}", Estimate(rate, rate, rate, count), "", True)
        for name, rate in rates.items()
    ]


def check_model(backbone: Backbone, prompts: int = 256) -> list[Check]:
    """The whole table: prompts that are followed, targets that are unknown, and the judge's accuracy.

    Args:
        backbone: whose folder holds the judge.
        prompts: how many random portraits to sample; the other parts of the check scale with it.

    Raises:
        FileNotFoundError: if there is no judge in the model's folder.
    """
    judge = load_judge(backbone)
    return [*prompt_following(backbone, judge, prompts), *_targets_and_judge(backbone, judge, prompts)]


def check_last_test(backbone: Backbone, prompts: int = 256) -> list[Check]:
    """The table of the last test's targets and judge; as :func:`check_model`, which has prompt following."""
    judge = load_judge(backbone, *FINAL_TARGETS)
    return _targets_and_judge(backbone, judge, prompts, FINAL_TARGETS, "final-held-out")


def _targets_and_judge(
    backbone: Backbone,
    judge: Judge,
    prompts: int,
    targets: Iterable[str] = tuple(TARGETS),
    split: str = "held-out",
) -> list[Check]:
    """Whether targets are unknown, and how right the judge is, on numbers of portraits that scale with the prompts."""
    return [
        *unseen_targets(backbone, judge, max(1, prompts // 4), targets=targets),
        *held_out_accuracy(backbone.pipe.vae, judge, max(1, 4 * prompts - 24), split),
    ]
