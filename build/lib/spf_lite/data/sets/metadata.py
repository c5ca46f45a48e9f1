"""Which pictures a custom set has and what is written about each: ``metadata.jsonl``, ``metadata.csv``, or ``.txt``.

Files are UTF-8, with or without a byte-order mark (UTF-16 with one is read, too). File names stay inside the folder.
What the texts mean is the business of :mod:`spf_lite.data.sets.captions`.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

from spf_lite.data.sets.errors import CustomSetError
from spf_lite.data.sets.pictures import HEIC_SUFFIXES

TEXT_KEYS = ("file_name", "base_text", "target_text", "replaces", "text", "mask_file")
#: Characters of a file that a message shows at most.
SHOWN = 5


@dataclass(frozen=True)
class Line:
    """One portrait's entry, as it was read: texts are not empty, stripped and in Unicode's composed form (NFC).

    Attributes:
        where: file and line, for messages.
        file_name: of the picture, relative to the folder; None in ``references.jsonl``.
        base_text: the prompt without the target.
        target_text: the target.
        replaces: the phrase of the base text that the target takes the place of.
        caption: column ``text``, or a ``.txt`` file: may show the target or not.
        mask_file: of the mask, relative to the folder.
        phrases: of the base text, to protect.
    """

    where: str
    file_name: str | None = None
    base_text: str | None = None
    target_text: str | None = None
    replaces: str | None = None
    caption: str | None = None
    mask_file: str | None = None
    phrases: tuple[str, ...] | None = None


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file of the set.

    Raises:
        CustomSetError: if the name leads out of the folder: absolute, by ``..``, or through a symbolic link.
    """
    try:
        path = folder / name
        outside = Path(name).is_absolute() or bool(PureWindowsPath(name).drive)
        if outside or not path.resolve().is_relative_to(folder.resolve()):
            raise CustomSetError(f"{where}: {name!r} leads out of the folder {folder}: put a copy of the file into it")
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a name with a null byte
        if isinstance(error, CustomSetError):
            raise
        raise CustomSetError(f"{where}: {name!r} is no file name ({error})") from error
    return path


def read_bytes(path: Path, where: str, what: str) -> bytes:
    """The content of a file.

    Raises:
        CustomSetError: if it is not there or cannot be read.
    """
    try:
        if not path.is_file():
            raise CustomSetError(f"{where}: there is no {what} {path}")
        return path.read_bytes()
    except OSError as error:
        raise CustomSetError(f"{where}: the {what} {path} cannot be read ({error})") from error


def decode(content: bytes, path: Path) -> str:
    """The text of a file, composed (NFC), with ``\\n`` at line ends.

    Raises:
        CustomSetError: if it is not UTF-8, and no UTF-16 with a byte-order mark.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CustomSetError(f"{path}: cannot be read as UTF-8 ({error})") from error
    # Only these end a line: JSON may hold the others that str.splitlines knows, such as U+2028.
    return unicodedata.normalize("NFC", re.sub(r"\r\n?", "\n", text))


def read_jsonl(path: Path, content: bytes) -> Iterator[Line]:
    """The lines of a ``metadata.jsonl`` or ``references.jsonl`` that are not empty."""
    for number, text in enumerate(decode(content, path).split("\n"), start=1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        yield _line(json_object(text, where, CustomSetError), where)


def json_object(text: str, where: str, kind: type[ValueError]) -> dict[str, Any]:
    """The object that one line of a file holds as JSON.

    Args:
        text: the line.
        where: file and line, for the message.
        kind: of the error.

    Raises:
        ValueError: of that kind, if the line is no JSON, or something else than an object.
    """
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise kind(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise kind(f"{where}: expected a JSON object, found {type(entry).__name__}")
    return entry


def read_csv(path: Path, content: bytes) -> Iterator[Line]:
    """The rows of a ``metadata.csv``; its first row names the columns, empty cells count as not there."""
    reader = csv.DictReader(io.StringIO(decode(content, path), newline=""), strict=True)
    try:
        if "phrases" in (reader.fieldnames or ()):
            raise CustomSetError(f"{path}, line 1: 'phrases' are a list, which takes a metadata.jsonl")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise CustomSetError(f"{where}: more cells than columns (a text with commas takes quotation marks)")
            yield _line({key: value for key, value in row.items() if value and value.strip()}, where)
    except csv.Error as error:
        raise CustomSetError(f"{path}, line {reader.reader.line_num}: not valid CSV ({error})") from error


def _line(entry: Mapping[str, object], where: str) -> Line:
    texts: dict[str, str] = {}
    for key in TEXT_KEYS:
        value = entry.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            raise CustomSetError(f"{where}: {key!r} is missing, empty or not a text")
        texts[key] = _text(value, where, keep=key in ("file_name", "mask_file"))
    phrases = entry.get("phrases")
    if phrases is not None:
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
            raise CustomSetError(f"{where}: 'phrases' must be a list of phrases of the base text, found {phrases!r}")
        phrases = tuple(_text(phrase, where) for phrase in phrases)
    return Line(where, caption=texts.pop("text", None), phrases=phrases, **texts)


def _text(value: str, where: str, keep: bool = False) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CustomSetError(f"{where}: {value!r} is not valid Unicode ({error.reason})") from error
    return value if keep else unicodedata.normalize("NFC", value.strip())


def read_txt(folder: Path) -> Iterator[tuple[Line, bytes]]:
    """Every picture of a folder with the caption beside it: ``a.jpg``, ``a.txt`` and, if there is one, ``a.mask.png``.

    Raises:
        CustomSetError: if the folder has no pictures, or pictures without a caption of their own.
    """
    known = {*Image.registered_extensions(), *HEIC_SUFFIXES}
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise CustomSetError(f"{folder}: cannot be read ({error})") from error
    pictures = [path for path in files if path.suffix.lower() in known]
    masks = {path.stem[:-5]: path.name for path in pictures if path.stem.endswith(".mask")}
    pictures = [path for path in pictures if not path.stem.endswith(".mask")]
    captions = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    if not pictures:
        raise CustomSetError(f"{folder}: there is no metadata.jsonl, no metadata.csv, and no picture")
    if bare := [path.name for path in pictures if path.stem not in captions]:
        missing = ", ".join(bare[:SHOWN]) + (", ..." if len(bare) > SHOWN else "")
        raise CustomSetError(
            f"{folder}: {len(bare)} of {len(pictures)} pictures have no caption: {missing}. Write a metadata.jsonl, a "
            "metadata.csv, or beside each picture a text file of the same name (a.txt for a.jpg)"
        )
    seen: dict[str, Path] = {}
    for picture in pictures:
        path = captions[picture.stem]
        if picture.stem in seen:
            raise CustomSetError(
                f"{path}: two pictures have this caption, {seen[picture.stem].name} and {picture.name}"
            )
        seen[picture.stem] = picture
        content = read_bytes(inside(folder, path.name, str(path)), str(path), "caption")
        caption = " ".join(decode(content, path).split())
        if not caption:
            raise CustomSetError(f"{path}: the caption is empty")
        yield Line(str(path), picture.name, caption=caption, mask_file=masks.get(picture.stem)), content
