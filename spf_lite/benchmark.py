"""Methods against each other on one target: same data, same steps, same seeds; one row per (method, seed),
resumable."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spf_lite.custom_sets import ACCIDENTS, evaluation_portraits, silent_about
from spf_lite.judge import Judge
from spf_lite.metrics import Estimate, bias_pickup, bootstrap, flip_rates, flips_per_attribute
from spf_lite.pipelines import Backbone, load, sample
from spf_lite.portraits import complete, describe

logger = logging.getLogger(__name__)

DATA = Path(__file__).parent.parent / "data_samples"


@dataclass(frozen=True)
class Portraits:
    """What a tuned model is measured on: people, prompts, seeds, and the base model's portraits for the base texts."""

    target: str
    base_texts: list[str]
    complete_texts: list[str]
    seeds: list[int]
    before: list[Image.Image]


def evaluation_set(backbone: Backbone, target: str, prompts: int, steps: int = 25) -> Portraits:
    """Draw the "before" side once; every method is compared with it.

    Raises:
        ValueError: for an unknown target, or fewer than one prompt.
    """
    if prompts < 1:
        raise ValueError(f"prompts={prompts}: at least one is needed")
    people = evaluation_portraits(target, prompts)
    leave_out = silent_about(target, "named")
    base_texts = [describe(portrait, leave_out) for portrait in people]
    complete_texts = [complete(portrait.with_targets(target), leave_out) for portrait in people]
    seeds = list(range(1000, 1000 + prompts))
    return Portraits(
        target, base_texts, complete_texts, seeds, sample(backbone.pipe, base_texts, seeds=seeds, steps=steps)
    )


@dataclass(frozen=True)
class Row:
    """One method on one target, one training seed. ``found`` and ``flip`` have one entry per prompt."""

    method: str
    target: str
    seed: int
    found: list[float]
    flip: list[float]
    leaked: float
    identity: float
    per_attribute: dict[str, float]
    bias: dict[str, float]
    seconds: float


def measure(backbone: Backbone, judge: Judge, portraits: Portraits, method: str, seed: int, seconds: float) -> Row:
    """Measure the pipeline as it stands (with its adapter loaded)."""
    after = sample(backbone.pipe, portraits.complete_texts, seeds=portraits.seeds)
    again = sample(backbone.pipe, portraits.base_texts, seeds=portraits.seeds)
    was, now = judge(portraits.before), judge(after)
    target = portraits.target
    return Row(
        method=method,
        target=target,
        seed=seed,
        found=now.shows(target).astype(float).tolist(),
        flip=flip_rates(was.attributes, now.attributes, target).tolist(),
        leaked=float(judge(again).shows(target).mean()),
        identity=float(np.mean((was.identity * now.identity).sum(axis=1))),
        per_attribute=flips_per_attribute(was.attributes, now.attributes, target),
        bias=bias_pickup(was.attributes, now.attributes, ACCIDENTS[target]),
        seconds=seconds,
    )


def train_and_measure(
    method: str, target: str, seed: int, folder: Path, portraits: Portraits, judge: Judge, captions: str
) -> Row:
    """One row: train (or take up) the adapter in ``folder/<target>/<method>-<seed>``, sample, judge."""
    from spf_lite.data import CustomSet
    from spf_lite.methods import recipe
    from spf_lite.training import DualPathTrainer

    path = folder / target / f"{method}-{seed}"
    done = path / "row.json"
    if done.exists():
        return Row(**json.loads(done.read_text()))
    backbone = load("tiny")
    custom = CustomSet.load(DATA / "custom" / target, captions)
    trainer = DualPathTrainer(backbone, custom, recipe(method, seed=seed), path)
    result = trainer.fit(resume=True)
    trainer.export(path / "adapter")
    row = measure(backbone, judge, portraits, method, seed, float(result.seconds))
    done.write_text(json.dumps(row.__dict__))
    return row


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Target found and flip rate of one method: means over prompts and seeds with bootstrap intervals."""
    return {
        "target found": bootstrap(np.concatenate([row.found for row in rows])),
        "flip rate": bootstrap(np.concatenate([row.flip for row in rows])),
    }


def compare_methods(
    target: str,
    folder: Path,
    methods: Sequence[str] = ("naive", "spf"),
    prompts: int = 64,
    seeds: Sequence[int] = (0, 1, 2),
    captions: str = "silent",
) -> list[str]:
    """Train every method with every seed (rows that exist are kept) and return the lines of the table."""
    backbone = load("tiny")
    judge = Judge.load(DATA / "tiny-portraits" / "judge")
    portraits = evaluation_set(backbone, target, prompts)
    lines = [f"{'method':<8} {'target found':<24} {'flip rate':<24} {'leaked':>7} {'identity':>9}  flips by attribute"]
    for method in methods:
        rows = [train_and_measure(method, target, seed, folder, portraits, judge, captions) for seed in seeds]
        numbers = summary(rows)
        flipped = {name: float(np.mean([row.per_attribute[name] for row in rows])) for name in rows[0].per_attribute}
        worst = ", ".join(f"{name} {rate:.2f}" for name, rate in sorted(flipped.items(), key=lambda x: -x[1])[:4])
        leaked, identity = np.mean([row.leaked for row in rows]), np.mean([row.identity for row in rows])
        found, flip = numbers["target found"], numbers["flip rate"]
        lines.append(f"{method:<8} {found!s:<24} {flip!s:<24} {leaked:7.3f} {identity:9.3f}  {worst}")
    return lines
