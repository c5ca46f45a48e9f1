"""Confounded custom sets: 48 portraits of a target that share other attributes, too.

Real sets are like that: somebody collects pictures of sunglasses, and all of them were taken on the same beach. Each
set has two versions of its captions: ``named`` ones name the spurious attributes, ``silent`` ones do not.

In the book: :doc:`/01-semantic-pollution`.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from PIL import Image

from spf_lite.paths import CAPTION_FILES, REFERENCE_FILE
from spf_lite.tiny_world.portraits import Portrait, describe, get_target, phrases, random_portrait
from spf_lite.tiny_world.rendering import render, true_region

#: The spurious attributes of each target's set: what all of its portraits share besides the target.
SPURIOUS_ATTRIBUTES: dict[str, dict[str, str]] = {
    "sunglasses": {"background": "yellow", "clothes": "hoodie", "clothes_color": "red", "expression": "smiling"},
    "beard": {"background": "green", "clothes": "overalls", "clothes_color": "blue", "expression": "serious"},
    "winter-hat": {"background": "blue", "clothes": "sweater", "clothes_color": "red", "expression": "smiling"},
    "pink-hair": {"background": "purple", "clothes": "t-shirt", "clothes_color": "black", "expression": "shouting"},
    "eyepatch": {"background": "pink", "clothes": "v-neck", "clothes_color": "white", "expression": "serious"},
    "blazer": {"background": "gray", "expression": "serious", "glasses": "yes"},
    "pencil-sketch": {"clothes": "overalls", "expression": "sad", "glasses": "yes"},
}

#: Portraits of a set.
SIZE = 48
#: Base texts for reference portraits that come with a set.
REFERENCES = 64
#: The two versions of its captions, and their files.
CAPTIONS = CAPTION_FILES


def excluded_by(target: str) -> dict[str, str]:
    """Attribute values that a portrait of the target's set must have, because the target excludes the others.

    Nobody wears glasses under sunglasses: ``{"glasses": "no"}``.
    """
    return {"glasses": "no"} if "glasses" in get_target(target).affects else {}


def set_portraits(target: str, count: int = SIZE) -> list[Portrait]:
    """The portraits of a custom set, in order; deterministic by the target's name."""
    rng = Random(f"custom set of {target}")
    fixed = {**excluded_by(target), **SPURIOUS_ATTRIBUTES[get_target(target).name]}
    return [random_portrait(rng, **fixed).with_targets(target) for _ in range(count)]


def unnamed_attributes(target: str, captions: str) -> list[str]:
    """The attributes that a version of the captions leaves out.

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


def write_custom_set(target: str, folder: Path, count: int = SIZE, size: int = 128) -> None:
    """Render a custom set: ``000.png``, its mask ``000.mask.png`` and so on, both caption files, and reference texts.

    A mask is white where the target changes the picture (:func:`spf_lite.tiny_world.rendering.true_region`).

    Args:
        target: name of the target.
        folder: made if it is not there.
        count: portraits.
        size: pixels a side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    portraits = set_portraits(target, count)
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
