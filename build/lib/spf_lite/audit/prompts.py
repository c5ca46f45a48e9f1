"""The prompts of an audit: read from a file or taken from the shipped lists, each with its complete text, all checked.

A file has one base text a line, or one JSON object a line with ``base_text`` and, if wanted, ``complete_text`` and
``replaces``. So a custom set's ``references.jsonl`` serves as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spf_lite.audit.texts import PORTRAITS, UNRELATED
from spf_lite.data.sets.captions import occurrences
from spf_lite.data.sets.metadata import decode, json_object
from spf_lite.data.texts import text_pair
from spf_lite.models.backbone import Backbone
from spf_lite.models.tokenizer import PromptError, check_length
from spf_lite.tiny_world.custom_sets import evaluation_portraits
from spf_lite.tiny_world.portraits import ATTRIBUTES, TARGETS, describe, phrases

#: Keys of a JSON line.
KEYS = ("base_text", "complete_text", "replaces")
#: A tokenizer with fewer tokens than this is that of the tiny world, which knows no other words.
SMALL_VOCABULARY = 4000


@dataclass(frozen=True)
class Prompt:
    """One person of an audit.

    Attributes:
        base_text: without the target.
        complete_text: with the target; None: it is made of the base text, or there is no target.
        replaces: the phrase of the base text that the target takes the place of.
        where: file and line, for messages.
    """

    base_text: str
    complete_text: str | None = None
    replaces: str | None = None
    where: str = ""


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file: lines of text, or JSON lines if the first one begins with a brace.

    Empty lines are left out.

    Raises:
        PromptError: if there are none, or a line is not valid; the message has its number.
        OSError: if the file cannot be read.
        ValueError: if it is not UTF-8.
    """
    lines = [
        (f"{path}, line {number}", line.strip())
        for number, line in enumerate(decode(path.read_bytes(), path).split("\n"), start=1)
        if line.strip()
    ]
    if not lines:
        raise PromptError(f"{path}: there is no text in it: expected one base text a line")
    if lines[0][1].startswith("{"):
        return [_of_json(where, line) for where, line in lines]
    return [Prompt(line, where=where) for where, line in lines]


def _of_json(where: str, line: str) -> Prompt:
    entry = json_object(line, where, PromptError)
    if unknown := [key for key in entry if key not in KEYS]:
        raise PromptError(f"{where}: unknown {', '.join(map(repr, unknown))}: expected {', '.join(KEYS)}")
    for key in KEYS:
        value = entry.get(key, None if key != "base_text" else "")
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise PromptError(f"{where}: {key!r} is missing, empty or not a text")
    return Prompt(**{key: value.strip() for key, value in entry.items() if value is not None}, where=where)


def default_prompts(backbone: Backbone, target_text: str | None = None) -> tuple[list[Prompt], list[str]]:
    """Prompts and unrelated texts that the model can read: the shipped lists, or texts of the tiny world for its model.

    Args:
        backbone: whose vocabulary decides.
        target_text: if it is that of a target of the tiny world, nobody shows what this target covers, and prompts name
            what it replaces.
    """
    if not reads_tiny_world_only(backbone):
        shipped = [Prompt(text, where=f"shipped text {number}") for number, text in enumerate(PORTRAITS, start=1)]
        return shipped, list(UNRELATED)
    target = next((name for name, spec in TARGETS.items() if spec.text == target_text), None)
    replaced = TARGETS[target].replaces if target else None
    people = evaluation_portraits(target or "sunglasses", len(PORTRAITS))
    prompts = [
        Prompt(
            describe(person),
            replaces=phrases(person)[replaced] if replaced else None,
            where=f"text {number} of the tiny world",
        )
        for number, person in enumerate(people, start=1)
    ]
    # No other picture without a person can be said in its words.
    return prompts, [f"{color} background" for color in ATTRIBUTES["background"]]


def reads_tiny_world_only(backbone: Backbone) -> bool:
    """Whether the vocabulary of a model is that of the tiny world."""
    tokenizer: Any = backbone.readers[0].tokenizer
    return len(tokenizer.get_vocab()) < SMALL_VOCABULARY


def completed(
    backbone: Backbone, prompts: Sequence[Prompt], target_text: str | None = None, replaces: str | None = None
) -> list[Prompt]:
    """The same prompts, each with its complete text if there is a target. Everything is checked, nothing sampled.

    Args:
        backbone: whose text encoders the texts must fit.
        prompts: those with a complete text keep it.
        target_text: is put into the others as :mod:`spf_lite.data` does: at the end, after a comma, or in the place of
            what it replaces.
        replaces: that phrase, for prompts that name none of their own.

    Raises:
        PromptError: if a text is empty or too long, a base text holds the target, a complete text does not, a phrase
            does not stand in the base text, or only some prompts have a complete text.
        ValueError: if there are no prompts, or a phrase to replace but no target.
    """
    if not prompts:
        raise ValueError("there are no prompts: at least one is needed")
    if target_text is not None and not target_text.strip():
        raise PromptError("the target text is empty")
    if target_text is None and (replaces is not None or any(p.replaces and not p.complete_text for p in prompts)):
        raise ValueError("a phrase is replaced by the target: give the target text, too")
    found = [_completed(backbone, prompt, target_text and target_text.strip(), replaces) for prompt in prompts]
    without = [prompt for prompt in found if prompt.complete_text is None]
    if 0 < len(without) < len(found):
        raise PromptError(f"{without[0].where}: there is no complete text, but others have one")
    return found


def _completed(backbone: Backbone, prompt: Prompt, target: str | None, replaces: str | None) -> Prompt:
    where = f"{prompt.where}: " if prompt.where else ""
    replaces = prompt.replaces or replaces
    if target is not None and occurrences(prompt.base_text, target):
        raise PromptError(f"{where}the base text {prompt.base_text!r} already holds the target {target!r}")
    if target is not None:
        pair = text_pair(backbone, prompt.base_text, target, replaces, where=prompt.where)
        complete_text = prompt.complete_text or pair.complete_text
        if not occurrences(complete_text, target):
            raise PromptError(f"{where}the complete text {complete_text!r} does not hold the target {target!r}")
        prompt = replace(prompt, complete_text=complete_text, replaces=replaces)
    check_texts(backbone, [text for text in (prompt.base_text, prompt.complete_text) if text is not None], prompt.where)
    return prompt


def check_texts(backbone: Backbone, texts: Sequence[str], where: str = "") -> None:
    """Check that texts fit the text encoders of a model.

    Raises:
        PromptTooLongError: if one has more tokens than a text encoder takes.
    """
    for text in texts:
        for reader in backbone.readers:
            try:
                check_length(reader, text)
            except PromptError as error:
                raise type(error)(f"{where}: {error}" if where else str(error)) from None
