"""A custom set on disk: a folder of images and a ``metadata.jsonl``, the layout that ``datasets`` calls *imagefolder*.

One JSON object a line: ``file_name``, ``base_text``, ``target_text``, and optionally ``phrases`` (what to protect;
default: the comma-separated parts of the base text), ``replaces`` (the phrase whose place the target takes) and
``mask_file`` (an image of the same size, white where the target may act; only the given-mask baseline uses it).
A file ``references.jsonl`` beside it may hold base texts of other people (``base_text``, optionally ``replaces``), for
which the reference model draws portraits of its own; the more they name, the more the control map protects.
Everything is checked when the set is loaded, before any training; an error names the file and the line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

CAPTION_FILES = {"named": "metadata.jsonl", "silent": "metadata.silent.jsonl"}
REFERENCE_FILE = "references.jsonl"


class CustomSetError(ValueError):
    """Something is wrong with a custom set; the message names the file and, where there is one, the line."""


@dataclass(frozen=True)
class Example:
    """One portrait that shows the target, with its texts."""

    image: Image.Image
    base_text: str
    target_text: str
    replaces: str | None = None
    phrases: tuple[str, ...] | None = None
    mask: Image.Image | None = None


@dataclass(frozen=True)
class CustomSet:
    """A checked custom set in memory.

    Attributes:
        folder: where it came from.
        examples: the portraits, in the order of the metadata.
        digest: SHA-256 of the metadata and of every image, in order; goes into the model card.
        references: pairs of a base text of somebody else and the phrase in it that the target would replace.
    """

    folder: Path
    examples: tuple[Example, ...]
    digest: str
    references: tuple[tuple[str, str | None], ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @classmethod
    def load(cls, folder: str | Path, captions: str = "named") -> CustomSet:
        """Read and check a folder.

        Args:
            folder: with the images and the metadata.
            captions: ``named`` reads ``metadata.jsonl``; ``silent`` reads ``metadata.silent.jsonl``, whose captions do
                not mention the accidental attributes.

        Raises:
            CustomSetError: if the metadata or an image is missing, corrupt or incomplete.
        """
        folder = Path(folder)
        if captions not in CAPTION_FILES:
            raise CustomSetError(f"captions={captions!r}: expected one of {', '.join(CAPTION_FILES)}")
        path = folder / CAPTION_FILES[captions]
        digest = hashlib.sha256()
        examples = []
        for line, where in _lines(path, digest):
            example, pixels = _read_example(folder, line, where)
            examples.append(example)
            digest.update(pixels)
        if not examples:
            raise CustomSetError(f"{path}: the set is empty")
        references = []
        if (folder / REFERENCE_FILE).exists():
            for line, where in _lines(folder / REFERENCE_FILE, digest):
                entry = _read_entry(line, where, ("base_text",))
                references.append((entry["base_text"], entry.get("replaces")))
        return cls(folder, tuple(examples), digest.hexdigest(), tuple(references))


def _lines(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not empty, and where each stands."""
    try:
        content = path.read_bytes()
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CustomSetError(f"{path}: cannot be read ({error})") from error
    digest.update(content)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line, f"{path}, line {number}"


def _read_entry(line: str, where: str, needed: tuple[str, ...]) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise CustomSetError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise CustomSetError(f"{where}: expected a JSON object, found {type(entry).__name__}")
    for key in needed:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise CustomSetError(f"{where}: {key!r} is missing, empty or not a text")
    replaces = entry.get("replaces")
    if replaces is not None and (not isinstance(replaces, str) or replaces not in entry["base_text"]):
        raise CustomSetError(f"{where}: 'replaces' must be a phrase of the base text, found {replaces!r}")
    return entry


def _read_example(folder: Path, line: str, where: str) -> tuple[Example, bytes]:
    entry = _read_entry(line, where, ("file_name", "base_text", "target_text"))
    replaces, phrases = entry.get("replaces"), entry.get("phrases")
    if phrases is not None and (
        not isinstance(phrases, list)
        or not all(isinstance(phrase, str) and phrase and phrase in entry["base_text"] for phrase in phrases)
    ):
        raise CustomSetError(f"{where}: 'phrases' must be a list of phrases of the base text, found {phrases!r}")
    image, content = _read_image(folder / entry["file_name"], where, "image")
    mask = None
    if entry.get("mask_file") is not None:
        mask, more = _read_image(folder / str(entry["mask_file"]), where, "mask")
        content += more
        if mask.size != image.size:
            raise CustomSetError(f"{where}: the mask is {mask.size} pixels, its image {image.size}")
    protected = None if phrases is None else tuple(phrases)
    return Example(image, entry["base_text"], entry["target_text"], replaces, protected, mask), content


def _read_image(path: Path, where: str, what: str) -> tuple[Image.Image, bytes]:
    if not path.is_file():
        raise CustomSetError(f"{where}: there is no {what} {path}")
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB"), path.read_bytes()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise CustomSetError(f"{where}: the {what} {path} is corrupt ({error})") from error
