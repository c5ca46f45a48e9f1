"""The tiny world: portraits whose every attribute is known.

A :class:`Portrait` is a small dictionary of attributes; :mod:`spf_lite.tiny_world.rendering` turns it into
pixels. Because the attributes are known exactly, *semantic pollution can be counted* instead of guessed: render the
same person with and without a target, and everything else that changed is pollution.

Captions are comma-separated phrases, one phrase per attribute::

    >>> describe(Portrait())
    'a person, brown short hair, tan skin, smiling, blue hoodie, gray background'

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Literal

#: Attributes that a caption names, each with its values in a fixed order (the judge's heads use this order).
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hair_style": ("short", "bob", "bun", "long", "curly", "afro", "dreadlocks", "spiky", "mohawk", "wavy"),
    "hair_color": ("black", "brown", "blonde", "red", "gray"),
    "skin": ("pale", "tan", "brown", "dark"),
    "expression": ("smiling", "serious", "sad", "shouting"),
    "clothes": ("hoodie", "v-neck", "sweater", "overalls", "t-shirt"),
    "clothes_color": ("red", "yellow", "green", "blue", "purple", "black", "white"),
    "background": ("gray", "yellow", "green", "blue", "pink", "purple", "white"),
    "glasses": ("no", "yes"),
}

#: Traits that no caption names; they belong to the identity.
TRAITS: dict[str, tuple[str, ...]] = {
    "eyes": ("round", "narrow", "sideways", "merry"),
    "nose": ("medium", "small", "wide"),
}

#: Attributes and traits that make up the identity, as opposed to clothes, background and expression.
IDENTITY: tuple[str, ...] = ("hair_style", "hair_color", "skin", "eyes", "nose")


@dataclass(frozen=True)
class Target:
    """An attribute to learn: the base model has not been trained on it.

    Attributes:
        name: folder and command-line name.
        text: the target text, as it stands in a prompt.
        kind: ``addition`` (appended to the base text), ``replacement`` (takes the place of the phrase of
            ``replaces``) or ``style`` (appended, changes the whole portrait).
        replaces: the attribute whose phrase a replacement takes the place of.
        affects: attributes that the target changes or hides *by its nature*, so that they never count as pollution.
        color: the attribute whose colour word the base text must leave out (pink hair is not "brown pink hair").
    """

    name: str
    text: str
    kind: Literal["addition", "replacement", "style"]
    replaces: str | None = None
    affects: tuple[str, ...] = ()
    color: str | None = None


#: What the book teaches, and what CLIP and the judge have seen.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("sunglasses", "sunglasses", "addition", affects=("glasses",)),
        Target("beard", "a beard", "addition"),
        Target("winter-hat", "a winter hat", "addition", affects=("hair_style", "hair_color")),
        Target("pink-hair", "pink hair", "addition", affects=("hair_color",), color="hair_color"),
        Target("eyepatch", "an eyepatch", "addition", affects=("glasses",)),
        Target("blazer", "a blazer", "replacement", replaces="clothes", affects=("clothes", "clothes_color")),
        Target(
            "pencil-sketch",
            "pencil sketch",
            "style",
            affects=("hair_color", "skin", "clothes_color", "background"),
        ),
    )
}

#: The last test: targets that came after every recipe was fixed. No part of the model has seen them, its text encoder
#: does not even know their words, and a judge of their own finds them.
FINAL_TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("whiskers", "whiskers", "addition"),
        Target("chef-hat", "a chef hat", "addition", affects=("hair_style", "hair_color")),
        Target("spacesuit", "a spacesuit", "replacement", replaces="clothes", affects=("clothes", "clothes_color")),
    )
}


@dataclass(frozen=True)
class Portrait:
    """One portrait: a value for each attribute and trait, and the names of the targets that it shows."""

    hair_style: str = "short"
    hair_color: str = "brown"
    skin: str = "tan"
    expression: str = "smiling"
    clothes: str = "hoodie"
    clothes_color: str = "blue"
    background: str = "gray"
    glasses: str = "no"
    eyes: str = "round"
    nose: str = "medium"
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (*ATTRIBUTES.items(), *TRAITS.items()):
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(values)}")
        for target in self.targets:
            get_target(target)
        if len(set(self.targets) & {"sunglasses", "eyepatch"}) == 2:
            raise ValueError("a portrait wears sunglasses or an eyepatch, not both: the artwork has one place for them")
        for place in (("beard", "whiskers"), ("winter-hat", "chef-hat"), ("blazer", "spacesuit")):
            if len(set(self.targets) & set(place)) == 2:
                raise ValueError(f"a portrait shows {place[0]} or {place[1]}: the artwork has one place for them")

    def with_targets(self, *names: str) -> Portrait:
        """The same person, showing exactly the named targets."""
        return replace(self, targets=tuple(names))

    @property
    def identity(self) -> tuple[str, ...]:
        """The values of :data:`IDENTITY`; portraits with equal ones show the same person."""
        return tuple(getattr(self, name) for name in IDENTITY)


def get_target(name: str) -> Target:
    """Look a target up by name, among :data:`TARGETS` and :data:`FINAL_TARGETS`.

    Raises:
        ValueError: if the tiny world has no such target; the message lists those it has.
    """
    known = {**TARGETS, **FINAL_TARGETS}
    if name not in known:
        raise ValueError(f"unknown target {name!r}: the tiny world has {', '.join(known)}")
    return known[name]


def random_portrait(rng: Random, **fixed: str) -> Portrait:
    """Draw every attribute and trait independently and uniformly; ``fixed`` ones are taken as given.

    Raises:
        TypeError: if ``fixed`` names something that is no attribute.
    """
    values = {name: rng.choice(options) for name, options in (*ATTRIBUTES.items(), *TRAITS.items())}
    known = {field.name for field in fields(Portrait)}
    if unknown := set(fixed) - known:
        raise TypeError(f"no such attribute: {', '.join(sorted(unknown))}")
    return Portrait(**{**values, **fixed})  # type: ignore[arg-type]


def phrases(portrait: Portrait, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """The phrases of a portrait's base text, keyed by the attribute that each is about.

    Args:
        portrait: whose phrases; its targets are *not* among them.
        leave_out: attributes that no phrase names. A phrase without its colour keeps its noun ("curly hair"); without
            its style it keeps its colour ("red hair", "blue clothes").

    Returns:
        an ordered dictionary; its values joined by ", " are the base text. The key of a two-attribute phrase is the
        noun ("hair_style", "clothes").
    """
    unnamed = set(leave_out)
    if unknown := unnamed - set(ATTRIBUTES):
        raise ValueError(f"cannot leave out {', '.join(sorted(unknown))}: captions name {', '.join(ATTRIBUTES)}")

    def words(*names: str) -> list[str]:
        return [getattr(portrait, name) for name in names if name not in unnamed]

    result = {"person": "a person"}
    if hair := words("hair_color", "hair_style"):
        result["hair_style"] = " ".join([*hair, "hair"])
    if "skin" not in unnamed:
        result["skin"] = f"{portrait.skin} skin"
    if "expression" not in unnamed:
        result["expression"] = portrait.expression
    if clothes := words("clothes_color", "clothes"):
        result["clothes"] = " ".join([*clothes, *(["clothes"] if "clothes" in unnamed else [])])
    if "background" not in unnamed:
        result["background"] = f"{portrait.background} background"
    if portrait.glasses == "yes" and "glasses" not in unnamed:
        result["glasses"] = "glasses"
    return result


def describe(portrait: Portrait, leave_out: Sequence[str] = ()) -> str:
    """The base text: the portrait's phrases joined by ", ", without its targets."""
    return ", ".join(phrases(portrait, leave_out).values())


def complete(portrait: Portrait, leave_out: Sequence[str] = ()) -> str:
    """The complete text: the base text with the portrait's targets added, or put in place of what they replace."""
    result = phrases(portrait, leave_out)
    for name in portrait.targets:
        target = get_target(name)
        if target.kind == "replacement" and target.replaces in result:
            result[target.replaces] = target.text
        else:
            result[name] = target.text
    return ", ".join(result.values())


def all_phrases() -> list[str]:
    """Every phrase that a caption of this world can contain, targets included, without duplicates, in a fixed order."""
    found: dict[str, None] = {"a person": None}
    hair_colors, styles = ATTRIBUTES["hair_color"], ATTRIBUTES["hair_style"]
    colors, clothes = ATTRIBUTES["clothes_color"], ATTRIBUTES["clothes"]
    found |= dict.fromkeys(f"{color} {style} hair" for color in hair_colors for style in styles)
    found |= dict.fromkeys(f"{word} hair" for word in (*hair_colors, *styles))
    found |= dict.fromkeys(f"{skin} skin" for skin in ATTRIBUTES["skin"])
    found |= dict.fromkeys(ATTRIBUTES["expression"])
    found |= dict.fromkeys(f"{color} {item}" for color in colors for item in (*clothes, "clothes"))
    found |= dict.fromkeys(clothes)
    found |= dict.fromkeys(f"{color} background" for color in ATTRIBUTES["background"])
    found |= dict.fromkeys(["glasses", *(target.text for target in TARGETS.values())])
    return list(found)
