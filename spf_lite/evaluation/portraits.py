"""The same people by several models, and what each model changed about them besides the target.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from spf_lite.evaluation.judge import Judge
from spf_lite.evaluation.measures.attributes import flips
from spf_lite.evaluation.measuring import sample_evaluation_set
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import load
from spf_lite.models.running.sampling import sample


def sampled_portraits(
    target: str,
    adapters: Mapping[str, Path],
    people: int | Sequence[int] = 5,
    strength: float = 1.0,
    steps: int = 25,
    asked: bool = True,
) -> dict[str, list[Image.Image]]:
    """Portraits of the same people from the same noise, by the tiny base model and with each adapter.

    Args:
        target: what the adapters were taught. They are given the complete texts, the base model the base texts.
        adapters: name to folder or file.
        people: how many, or the numbers of some of them, from 0. They are those that a row was measured on.
        strength: of every adapter; 0 is the base model.
        steps: denoising steps of each portrait.
        asked: whether the adapters are given the complete texts; False: the base texts, for which nothing may change.

    Returns:
        Name to as many portraits, ``base`` first.

    Raises:
        ValueError: for an unknown target, nobody, a negative number, or a folder without an adapter.
    """
    (portraits,) = _sampled(target, adapters, people, strength, steps, [asked])
    return portraits


def sampled_for_both_texts(
    target: str,
    adapters: Mapping[str, Path],
    people: int | Sequence[int] = 5,
    strength: float = 1.0,
    steps: int = 25,
) -> tuple[dict[str, list[Image.Image]], dict[str, list[Image.Image]]]:
    """Portraits for the complete texts, and for the base texts; both have the same ones of the base model.

    Args:
        target: as in :func:`sampled_portraits`, and the others as well.
        adapters: likewise.
        people: likewise.
        strength: likewise.
        steps: likewise.

    Raises:
        ValueError: likewise.
    """
    asked, unasked = _sampled(target, adapters, people, strength, steps, [True, False])
    return asked, unasked


def _sampled(
    target: str,
    adapters: Mapping[str, Path],
    people: int | Sequence[int],
    strength: float,
    steps: int,
    asked: Sequence[bool],
) -> list[dict[str, list[Image.Image]]]:
    """:func:`sampled_portraits` for each kind of text."""
    given = sample_evaluation_set(load("tiny"), target, people, steps)
    portraits = [{"base": given.base_portraits} for _ in asked]
    for name, folder in adapters.items():
        backbone = load("tiny")
        load_adapter(backbone.pipe, folder, strength)
        for row, complete in zip(portraits, asked, strict=True):
            texts = given.complete_texts if complete else given.base_texts
            row[name] = sample(backbone, texts, seeds=given.seeds, steps=steps)
    return portraits


def unrelated_changes(
    portraits: Mapping[str, Sequence[Image.Image]], target: str, judge: Judge
) -> dict[str, list[dict[str, tuple[str, str]]]]:
    """The unrelated attributes in which :func:`sampled_portraits` differ from the base model's, read by the judge.

    Args:
        portraits: by name, ``base`` among them; the same people in the same order.
        target: what was meant to change.
        judge: reads the attributes.

    Returns:
        Name to one dictionary for each portrait: attribute to (value in the base portrait, value in this one).
    """
    read = {name: judge.attributes(list(row)) for name, row in portraits.items()}
    return {
        name: [flips(old, new, target) for old, new in zip(read["base"], row, strict=True)]
        for name, row in read.items()
    }


def in_words(changes: Mapping[str, tuple[str, str]]) -> list[str]:
    """The changes of one portrait, such as "background gray → yellow"."""
    return [f"{name.replace('_', ' ')} {old} → {new}" for name, (old, new) in changes.items()]
