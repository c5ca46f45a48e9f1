"""Confounded custom sets: 48 portraits of a target that share other attributes, too.

Real sets are like that: somebody collects pictures of sunglasses, and all of them were taken on the same beach. Each
set has two versions of its captions: ``named`` ones name the spurious attributes, ``silent`` ones do not.

Each target has one set that ships. What holds for it may hold for its beach only, so the spurious attributes can be
drawn instead: other values, and other people.

In the book: :doc:`/01-semantic-pollution`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from PIL import Image

from spf_lite.files import read_text
from spf_lite.paths import CAPTION_FILES, REFERENCE_FILE, SPURIOUS_FILE
from spf_lite.tiny_world.portraits import ATTRIBUTES, Portrait, describe, get_target, phrases, random_portrait
from spf_lite.tiny_world.rendering import render, true_region

#: The spurious attributes of each target's shipped set: what all of its portraits share besides the target.
SPURIOUS_ATTRIBUTES: dict[str, dict[str, str]] = {
    "sunglasses": {"background": "yellow", "clothes": "hoodie", "clothes_color": "red", "expression": "smiling"},
    "beard": {"background": "green", "clothes": "overalls", "clothes_color": "blue", "expression": "serious"},
    "winter-hat": {"background": "blue", "clothes": "sweater", "clothes_color": "red", "expression": "smiling"},
    "pink-hair": {"background": "purple", "clothes": "t-shirt", "clothes_color": "black", "expression": "shouting"},
    "eyepatch": {"background": "pink", "clothes": "v-neck", "clothes_color": "white", "expression": "serious"},
    "blazer": {"background": "gray", "expression": "serious", "glasses": "yes"},
    "pencil-sketch": {"clothes": "overalls", "expression": "sad", "glasses": "yes"},
    # Of the targets of the last test no set ships; their draws (below) have other values than these.
    "whiskers": {"background": "purple", "clothes": "sweater", "clothes_color": "green", "expression": "sad"},
    "chef-hat": {"background": "white", "clothes": "v-neck", "clothes_color": "blue", "expression": "shouting"},
    "spacesuit": {"background": "pink", "expression": "smiling", "glasses": "yes"},
}

#: Portraits of a set.
SIZE = 48
#: Base texts for reference portraits that come with a set.
REFERENCES = 256
#: The two versions of its captions, and their files.
CAPTIONS = CAPTION_FILES


@dataclass(frozen=True)
class SetNote:
    """What a custom set's ``spurious.json`` says.

    Attributes:
        target: name of the target.
        confounders: seed of the draw; None for the shipped set.
        spurious: attribute to the value that all portraits share.
    """

    target: str
    confounders: int | None
    spurious: dict[str, str]

    @classmethod
    def of(cls, target: str, confounders: int | None = None) -> SetNote:
        """The note of a set (:func:`spurious_attributes` has the errors)."""
        return cls(target, confounders, spurious_attributes(target, confounders))

    @classmethod
    def read(cls, folder: Path) -> SetNote:
        """The note in the folder of a set.

        Raises:
            ValueError: if the folder has none, or it cannot be read; the message names the file.
        """
        path = folder / SPURIOUS_FILE
        if not path.is_file():
            raise ValueError(f"{folder} does not say what its portraits share: there is no {SPURIOUS_FILE}")
        try:
            note = cls(**json.loads(read_text(path)))
            get_target(note.target)
            known = all(value in ATTRIBUTES[name] for name, value in note.spurious.items())
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"{path}: no note on spurious attributes ({error})") from error
        if not known:
            raise ValueError(f"{path}: an attribute has a value that the tiny world does not know")
        return note


def spurious_attributes(target: str, confounders: int | None = None) -> dict[str, str]:
    """What all portraits of a target's custom set share besides the target: attribute to value.

    A draw has the attributes of the shipped set (:data:`SPURIOUS_ATTRIBUTES`), each with a value that the shipped set
    does not have. Glasses stay: without them there would be nothing to pick up.

    Args:
        target: name of the target.
        confounders: seed of the draw; None for the shipped set.

    Raises:
        ValueError: for an unknown target, or a seed that is no whole number from 0 on.
    """
    shipped = SPURIOUS_ATTRIBUTES[get_target(target).name]
    if confounders is None:
        return dict(shipped)
    if not isinstance(confounders, int) or isinstance(confounders, bool) or confounders < 0:
        raise ValueError(f"confounders={confounders!r}: expected a whole number, 0 or more, or None")
    rng = Random(f"confounders of {target}, {confounders}")
    return {
        name: value if name == "glasses" else rng.choice([other for other in ATTRIBUTES[name] if other != value])
        for name, value in shipped.items()
    }


def excluded_by(target: str) -> dict[str, str]:
    """Attribute values that a portrait of the target's set must have, because the target excludes the others.

    Nobody wears glasses under sunglasses: ``{"glasses": "no"}``.
    """
    return {"glasses": "no"} if "glasses" in get_target(target).affects else {}


def excluded_phrases(target: str) -> tuple[str, ...]:
    """Phrases that no text holds together with a target: glasses with sunglasses, a hair colour with pink hair."""
    glasses = ("glasses",) if "glasses" in excluded_by(target) else ()
    if get_target(target).color != "hair_color":
        return glasses
    return (*glasses, *(f"{a} {b} hair" for a in ATTRIBUTES["hair_color"] for b in ATTRIBUTES["hair_style"]))


def set_portraits(target: str, count: int = SIZE, confounders: int | None = None) -> list[Portrait]:
    """The portraits of a custom set, in order; deterministic by the target's name and the seed of the draw.

    Args:
        target: name of the target.
        count: portraits.
        confounders: seed of the draw; None for the shipped set.

    Raises:
        ValueError: as :func:`spurious_attributes`.
    """
    fixed = {**excluded_by(target), **spurious_attributes(target, confounders)}
    rng = Random(f"custom set of {target}" + ("" if confounders is None else f", confounders {confounders}"))
    return [random_portrait(rng, **fixed).with_targets(target) for _ in range(count)]


def unnamed_attributes(target: str, captions: str) -> list[str]:
    """The attributes that a version of the captions leaves out; the same for every draw.

    Args:
        target: name of the target.
        captions: ``named`` or ``silent``.

    Raises:
        ValueError: if there is no such version.
    """
    if captions not in CAPTIONS:
        raise ValueError(f"captions={captions!r}: expected one of {', '.join(CAPTIONS)}")
    spec = get_target(target)
    unnamed = list(SPURIOUS_ATTRIBUTES[target]) if captions == "silent" else []
    return [*unnamed, spec.color] if spec.color else unnamed


def metadata_line(portrait: Portrait, target: str, captions: str) -> dict[str, object]:
    """The texts of a portrait's line in ``metadata.jsonl``: base text, target text, phrases, and what is replaced."""
    spec, leave_out = get_target(target), unnamed_attributes(target, captions)
    named = phrases(portrait, leave_out)
    line: dict[str, object] = {
        "base_text": describe(portrait, leave_out),
        "target_text": spec.text,
        "phrases": list(named.values()),
    }
    if spec.replaces:
        line["replaces"] = named[spec.replaces]
    return line


def write_custom_set(
    target: str, folder: Path, count: int = SIZE, size: int = 128, confounders: int | None = None
) -> None:
    """Render a custom set: ``000.png``, its mask ``000.mask.png`` and so on, both caption files, and reference texts.

    A mask is white where the target changes the picture (:func:`spf_lite.tiny_world.rendering.true_region`).
    ``spurious.json`` says what the portraits share (:class:`SetNote`); training does not read it.

    Args:
        target: name of the target.
        folder: made if it is not there.
        count: portraits.
        size: pixels a side.
        confounders: seed of the draw; None for the shipped set.

    Raises:
        ValueError: as :func:`spurious_attributes`, before anything is written.
    """
    portraits = set_portraits(target, count, confounders)
    folder.mkdir(parents=True, exist_ok=True)
    for number, portrait in enumerate(portraits):
        render(portrait, size).quantize(256, dither=Image.Dither.NONE).save(folder / f"{number:03d}.png", optimize=True)
        region = true_region(portrait, target, size)
        Image.fromarray(region).save(folder / f"{number:03d}.mask.png", optimize=True)
    for captions, name in CAPTIONS.items():
        lines = [
            json.dumps(
                {
                    "file_name": f"{number:03d}.png",
                    **metadata_line(portrait, target, captions),
                    "mask_file": f"{number:03d}.mask.png",
                }
            )
            for number, portrait in enumerate(portraits)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    lines = [json.dumps(line) for line in reference_lines(target)]
    (folder / REFERENCE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    note = json.dumps(asdict(SetNote.of(target, confounders)))
    (folder / SPURIOUS_FILE).write_text(note + "\n", encoding="utf-8", newline="\n")


def reference_lines(target: str, count: int = REFERENCES) -> list[dict[str, object]]:
    """The lines of ``references.jsonl``: base texts of other people, with every attribute named."""
    rng = Random(f"references of {get_target(target).name}")
    people = [random_portrait(rng, **excluded_by(target)) for _ in range(count)]
    lines = [metadata_line(portrait, target, "named") for portrait in people]
    return [{key: line[key] for key in ("base_text", "replaces") if key in line} for line in lines]


def evaluation_portraits(target: str, count: int, seed: int = 0) -> list[Portrait]:
    """Random portraits without the target; a tuned model is measured on their base and complete texts."""
    rng = Random(f"evaluation of {get_target(target).name}, {seed}")
    return [random_portrait(rng, **excluded_by(target)) for _ in range(count)]


def chosen_portraits(target: str, numbers: Sequence[int]) -> list[Portrait]:
    """Those of :func:`evaluation_portraits` that have these numbers, from 0; at least one."""
    everybody = evaluation_portraits(target, max(numbers) + 1)
    return [everybody[number] for number in numbers]
