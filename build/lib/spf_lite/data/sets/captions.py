"""What the texts of a line say: base text, target, and the phrase that the target replaces.

The method compares the *base text*, without the target, with the *complete text*. The base text must not hold the
target: it would be a protected phrase, and nothing of it could be learned. Where users have one caption, which may name
the target or not, the base text is made of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spf_lite.data.sets.errors import CustomSetError
from spf_lite.data.sets.metadata import Line


@dataclass(frozen=True)
class Texts:
    """The texts of one portrait, or of one reference portrait.

    Attributes:
        base_text: without the target.
        target_text: what is to be learned.
        replaces: the phrase of the base text that the target takes the place of.
        phrases: of the base text, to protect; None: those between its commas.
        treatments: what was done, in words that follow a number.
    """

    base_text: str
    target_text: str
    replaces: str | None = None
    phrases: tuple[str, ...] | None = None
    treatments: tuple[str, ...] = ()


def occurrences(text: str, target: str) -> list[tuple[int, int]]:
    """Where a text holds the target as whole words, in any case and with any spacing: ``start <= c < stop``.

    "shirt" does not stand in "T-shirt", nor "glasses" in "sunglasses".
    """
    words = target.split()
    if not words:
        return []
    pattern = r"\s+".join(map(re.escape, words))
    if re.match(r"\w", words[0][0]):
        pattern = r"(?<!\w)(?<!\w[-'’])" + pattern
    if re.match(r"\w", words[-1][-1]):
        pattern += r"(?!\w)(?![-'’]\w)"
    return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


def without_target(text: str, target: str, where: str) -> str:
    """The base text of a caption that shows the target between commas: the target goes, with its comma.

    Raises:
        CustomSetError: if nothing else is left, or the target stands inside a phrase, where it cannot be taken out
            without leaving half a sentence ("a woman wearing sunglasses").
    """
    kept, begin = [], 0
    for start, stop in occurrences(text, target):
        before, after = text[:start].strip(), text[stop:].strip()
        if after == ".":  # the end of a sentence
            after, stop = "", len(text)
        if (before and before[-1] != ",") or (after and after[0] != ","):
            raise CustomSetError(
                f"{where}: {target!r} cannot be told apart from the rest of {text!r}: set it between commas, or give "
                "'base_text' without it"
            )
        kept.append(text[begin:start])
        begin = stop
    kept.append(text[begin:])
    phrases = [phrase.strip() for phrase in "".join(kept).split(",")]
    base = ", ".join(phrase for phrase in phrases if phrase)
    if not base:
        raise CustomSetError(
            f"{where}: {text!r} is nothing but the target {target!r}: say what else the portrait shows"
        )
    return base


def texts_of(line: Line, target_text: str | None, replaces: str | None, repair: bool) -> Texts:
    """The texts of a line.

    Args:
        line: as it was read.
        target_text: given once for the whole set.
        replaces: given once for the whole set.
        repair: whether a target inside a base text is taken out instead of refused.

    Raises:
        CustomSetError: if a text is missing, the line and what was given once differ, the base text holds the target,
            a phrase does not stand in it, or the caption's base and target cannot be told apart.
    """
    target = _agree(line, "target_text", line.target_text, target_text)
    if target is None:
        raise CustomSetError(
            f"{line.where}: 'target_text' is missing, empty or not a text; give it in the line, or once for all lines "
            "(target_text=, --target-text)"
        )
    replaced = _agree(line, "replaces", line.replaces, replaces)
    if line.base_text is not None:
        texts = _given(line, line.base_text, target, replaced, repair)
    elif line.caption is not None:
        texts = _from_caption(line, line.caption, target, replaced)
    else:
        raise CustomSetError(f"{line.where}: 'base_text' is missing, empty or not a text (or a caption named 'text')")
    _check_phrases(line, texts)
    return texts


def _agree(line: Line, name: str, own: str | None, common: str | None) -> str | None:
    if own is not None and common is not None and own != common:
        raise CustomSetError(f"{line.where}: {name!r} is {own!r}, and {common!r} was given for all lines")
    return own or common


def _given(line: Line, base: str, target: str, replaces: str | None, repair: bool) -> Texts:
    if not occurrences(base, target):
        return Texts(base, target, replaces, line.phrases)
    if not repair:
        raise CustomSetError(
            f"{line.where}: the base text {base!r} already holds the target {target!r}: leave it out, or have "
            "it taken out (repair=True, --repair)"
        )
    phrases = line.phrases
    if phrases is not None:
        phrases = tuple(phrase for phrase in phrases if not occurrences(phrase, target))
    repaired = ("with the target taken out of the base text",)
    return Texts(without_target(base, target, line.where), target, replaces, phrases, repaired)


def _from_caption(line: Line, caption: str, target: str, replaces: str | None) -> Texts:
    found = occurrences(caption, target)
    if not found:
        unnamed = ("with captions that do not name the target",)
        return Texts(caption, target, replaces, line.phrases, unnamed if replaces is None else ())
    if replaces is None:
        return Texts(without_target(caption, target, line.where), target, None, line.phrases)
    # The caption is the complete text: the phrase that the target has replaced goes back to its place.
    rest = "".join(
        caption[a:b] for a, b in zip([0, *(s for _, s in found)], [*(s for s, _ in found), None], strict=True)
    )
    if len(found) > 1 or occurrences(rest, replaces):
        raise CustomSetError(
            f"{line.where}: base and target of {caption!r} cannot be told apart: it must name either the target "
            f"{target!r} or what it replaces, {replaces!r}, and that once"
        )
    ((start, stop),) = found
    return Texts(caption[:start] + replaces + caption[stop:], target, replaces, line.phrases)


def _check_phrases(line: Line, texts: Texts) -> None:
    base = texts.base_text
    if texts.replaces is not None and texts.replaces not in base:
        raise CustomSetError(
            f"{line.where}: 'replaces' must be a phrase of the base text {base!r}, found {texts.replaces!r}"
        )
    for phrase in texts.phrases or ():
        if phrase not in base:
            raise CustomSetError(f"{line.where}: 'phrases' must be phrases of the base text {base!r}, found {phrase!r}")
    if occurrences(base, texts.target_text):  # what replaces= names may hold the target, too
        raise CustomSetError(f"{line.where}: the base text {base!r} already holds the target {texts.target_text!r}")
