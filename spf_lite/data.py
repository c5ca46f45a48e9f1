"""A custom set on disk: a folder of images and a ``metadata.jsonl``, the layout that ``datasets`` calls *imagefolder*.

One JSON object a line: ``file_name``, ``base_text``, ``target_text``, and optionally ``phrases`` (what to protect;
default: the comma-separated parts of the base text) and ``replaces`` (the phrase whose place the target takes).
Everything is checked when the set is loaded, before any training; an error names the file and the line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

CAPTION_FILES = {"named": "metadata.jsonl", "silent": "metadata.silent.jsonl"}


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


@dataclass(frozen=True)
class CustomSet:
    """A checked custom set in memory.

    Attributes:
        folder: where it came from.
        examples: the portraits, in the order of the metadata.
        digest: SHA-256 of the metadata and of every image, in order; goes into the model card.
    """

    folder: Path
    examples: tuple[Example, ...]
    digest: str

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
            not
                mention the accidental attributes.

        Raises:
            CustomSetError: if the metadata or an image is missing, corrupt or incomplete.
        """
        folder = Path(folder)
        if captions not in CAPTION_FILES:
            raise CustomSetError(f"captions={captions!r}: expected one of {', '.join(CAPTION_FILES)}")
        path = folder / CAPTION_FILES[captions]
        try:
            content = path.read_bytes()
            lines = content.decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CustomSetError(f"{path}: cannot be read ({error})") from error
        digest = hashlib.sha256(content)
        examples = []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                example, pixels = _read_line(folder, line, f"{path}, line {number}")
                examples.append(example)
                digest.update(pixels)
        if not examples:
            raise CustomSetError(f"{path}: the set is empty")
        return cls(folder, tuple(examples), digest.hexdigest())


def _read_line(folder: Path, line: str, where: str) -> tuple[Example, bytes]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise CustomSetError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise CustomSetError(f"{where}: expected a JSON object, found {type(entry).__name__}")
    for key in ("file_name", "base_text", "target_text"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise CustomSetError(f"{where}: {key!r} is missing, empty or not a text")
    replaces, phrases = entry.get("replaces"), entry.get("phrases")
    if replaces is not None and (not isinstance(replaces, str) or replaces not in entry["base_text"]):
        raise CustomSetError(f"{where}: 'replaces' must be a phrase of the base text, found {replaces!r}")
    if phrases is not None and (
        not isinstance(phrases, list)
        or not all(isinstance(phrase, str) and phrase and phrase in entry["base_text"] for phrase in phrases)
    ):
        raise CustomSetError(f"{where}: 'phrases' must be a list of phrases of the base text, found {phrases!r}")
    image_path = folder / entry["file_name"]
    if not image_path.is_file():
        raise CustomSetError(f"{where}: there is no image {image_path}")
    try:
        with Image.open(image_path) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise CustomSetError(f"{where}: the image {image_path} is corrupt ({error})") from error
    return (
        Example(image, entry["base_text"], entry["target_text"], replaces, None if phrases is None else tuple(phrases)),
        image_path.read_bytes(),
    )
