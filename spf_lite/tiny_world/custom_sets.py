"""Custom sets, confounded on purpose: 48 portraits of a target in which other things are always the same, too.

Real sets are like that: somebody collects pictures of sunglasses, and all of them were taken on the same beach. Each
set is written twice: with captions that name the accidental attributes, and with captions that are silent about them.

In the book: :doc:`/01-semantic-pollution`.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from PIL import Image

from spf_lite.data.custom_set import REFERENCE_FILE
from spf_lite.tiny_world.portraits import Portrait, describe, get_target, phrases, random_portrait
from spf_lite.tiny_world.rendering import render, true_region

#: What every portrait of a target's set has in common besides the target: the pollution to come.
SPURIOUS_ATTRIBUTES: dict[str, dict[str, str]] = {
    "sunglasses": {"background": "yellow", "clothes": "hoodie", "clothes_color": "red", "expression": "smiling"},
    "beard": {"background": "green", "clothes": "overalls", "clothes_color": "blue", "expression": "serious"},
    "winter-hat": {"background": "blue", "clothes": "sweater", "clothes_color": "red", "expression": "smiling"},
    "pink-hair": {"background": "purple", "clothes": "t-shirt", "clothes_color": "black", "expression": "shouting"},
    "eyepatch": {"background": "pink", "clothes": "v-neck", "clothes_color": "white", "expression": "serious"},
    "blazer": {"background": "gray", "expression": "serious", "glasses": "yes"},
    "pencil-sketch": {"clothes": "overalls", "expression": "sad", "glasses": "yes"},
}

SIZE = 48
#: How many texts for the reference model's own portraits come with a set.
REFERENCES = 64
#: File names of the two caption versions.
CAPTIONS = {"named": "metadata.jsonl", "silent": "metadata.silent.jsonl"}


def unworn(target: str) -> dict[str, str]:
    """What a base portrait must not wear, because the target takes its place (glasses under sunglasses)."""
    return {"glasses": "no"} if "glasses" in get_target(target).affects else {}


def set_portraits(target: str, count: int = SIZE) -> list[Portrait]:
    """The portraits of a custom set, in order; deterministic by the target's name."""
    rng = Random(f"custom set of {target}")
    fixed = {**unworn(target), **SPURIOUS_ATTRIBUTES[get_target(target).name]}
    return [random_portrait(rng, **fixed).with_targets(target) for _ in range(count)]


def silent_about(target: str, captions: str) -> list[str]:
    """The attributes that the captions of a version do not name."""
    if captions not in CAPTIONS:
        raise ValueError(f"captions={captions!r}: expected one of {', '.join(CAPTIONS)}")
    spec = get_target(target)
    silent = list(SPURIOUS_ATTRIBUTES[target]) if captions == "silent" else []
    return [*silent, spec.color] if spec.color else silent


def record(portrait: Portrait, target: str, captions: str) -> dict[str, object]:
    """One line of ``metadata.jsonl``, without its file name."""
    spec, leave_out = get_target(target), silent_about(target, captions)
    said = phrases(portrait, leave_out)
    line: dict[str, object] = {
        "base_text": describe(portrait, leave_out),
        "target_text": spec.text,
        "phrases": list(said.values()),
    }
    if spec.replaces:
        line["replaces"] = said[spec.replaces]
    return line


def write_custom_set(target: str, folder: Path, count: int = SIZE, size: int = 128) -> None:
    """Render a custom set into ``folder``: ``000.png`` and its ``000.mask.png`` and so on, and both caption files.

    A mask is white where the target changes the picture (:func:`spf_lite.tiny_world.rendering.true_region`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = set_portraits(target, count)
    for number, portrait in enumerate(drawn):
        render(portrait, size).quantize(256, dither=Image.Dither.NONE).save(folder / f"{number:03d}.png", optimize=True)
        region = true_region(portrait, target, size)
        Image.fromarray(region).save(folder / f"{number:03d}.mask.png", optimize=True)
    for captions, name in CAPTIONS.items():
        lines = [
            json.dumps(
                {
                    "file_name": f"{number:03d}.png",
                    **record(portrait, target, captions),
                    "mask_file": f"{number:03d}.mask.png",
                }
            )
            for number, portrait in enumerate(drawn)
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
    lines = [json.dumps(line) for line in reference_lines(target)]
    (folder / REFERENCE_FILE).write_text("\n".join(lines) + "\n")


def reference_lines(target: str, count: int = REFERENCES) -> list[dict[str, object]]:
    """Base texts of other people, every attribute named: what the reference model draws portraits of its own for."""
    rng = Random(f"references of {get_target(target).name}")
    people = [random_portrait(rng, **unworn(target)) for _ in range(count)]
    records = [record(portrait, target, "named") for portrait in people]
    return [{key: line[key] for key in ("base_text", "replaces") if key in line} for line in records]


def evaluation_portraits(target: str, count: int, seed: int = 0) -> list[Portrait]:
    """Random portraits, without the target, whose base and complete texts a tuned model is measured on."""
    rng = Random(f"evaluation of {get_target(target).name}, {seed}")
    return [random_portrait(rng, **unworn(target)) for _ in range(count)]
