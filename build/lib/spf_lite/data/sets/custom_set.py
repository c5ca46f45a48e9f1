"""A custom set on disk: a folder of portraits that show the target, and texts about them.

The texts are one of

* ``metadata.jsonl``: one JSON object a line with ``file_name``, ``base_text``, ``target_text``, and optionally
  ``phrases`` (what to protect; default: the comma-separated parts of the base text), ``replaces`` (the phrase whose
  place the target takes) and ``mask_file`` (white where the target may act; only ``map_source="given"`` uses it).
  Instead of ``base_text`` there may be ``text``, a caption that may show the target: the layout that Hugging Face
  ``datasets`` calls *imagefolder*;
* ``metadata.csv`` with the same columns, but ``phrases``;
* a caption beside each picture: ``a.txt`` for ``a.jpg`` and, if there is a mask, ``a.mask.png``.

Captions show the target between commas ("a woman, sunglasses, a red coat") or not at all.

A file ``references.jsonl`` beside them may hold base texts of other people (``base_text``, optionally ``replaces``):
the reference model samples portraits for them. The more attributes they name, the more the control map protects.

Everything is checked when the set is loaded, before any training; an error names the file and the line. How pictures
are decoded is described in :mod:`spf_lite.data.sets.pictures`, how they are cropped in
:mod:`spf_lite.data.sets.geometry`.
"""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from PIL import Image

from spf_lite.data.sets.captions import texts_of
from spf_lite.data.sets.errors import CustomSetError as CustomSetError
from spf_lite.data.sets.geometry import LARGEST_SHORT_SIDE, crop_to, reduce_to_memory
from spf_lite.data.sets.metadata import Line, inside, read_bytes, read_csv, read_jsonl, read_txt
from spf_lite.data.sets.pictures import Picture, background_color, read_mask, read_picture
from spf_lite.paths import CAPTION_FILES, REFERENCE_FILE

logger = logging.getLogger(__name__)

#: What ``captions=`` may be.
CAPTIONS = (*CAPTION_FILES, "txt")
#: What ``shape=`` may be: cropped to a square, or kept for buckets of similar aspect ratio.
SHAPES = ("square", "buckets")


@dataclass(frozen=True)
class Example:
    """One portrait that shows the target, with its texts.

    Attributes:
        image: upright, RGB, without transparency.
        base_text: the prompt without the target.
        target_text: the target.
        replaces: the phrase of the base text that the target takes the place of.
        phrases: of the base text, to protect; None: those between its commas.
        mask: mode L, of the image's size, white where the target may act.
        where: file and line of its texts, for messages.
    """

    image: Image.Image
    base_text: str
    target_text: str
    replaces: str | None = None
    phrases: tuple[str, ...] | None = None
    mask: Image.Image | None = None
    where: str = ""


@dataclass(frozen=True)
class LoadReport:
    """What was done to the portraits of a set.

    Attributes:
        portraits: how many there are.
        treatments: what was done, to how many: ``{"rotated by EXIF": 3, "composed on white": 2}``.
    """

    portraits: int = 0
    treatments: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Such as "48 portraits: 3 rotated by EXIF, 2 composed on white, 5 cropped from non-square"."""
        done = ", ".join(f"{count} {what}" for what, count in self.treatments.items())
        portraits = "1 portrait" if self.portraits == 1 else f"{self.portraits} portraits"
        return f"{portraits}: {done or 'taken as they are'}"


@dataclass(frozen=True)
class CustomSet:
    """A checked custom set in memory.

    Attributes:
        folder: where it came from.
        examples: the portraits, in the order of the metadata.
        digest: SHA-256 of the texts, of every image and mask, in order, and of the options that are not the default.
        references: pairs of a base text of somebody else and the phrase in it that the target would replace.
        reference_places: file and line of each of ``references``.
        report: what was done to the portraits.
        excludes: phrases that no text holds together with the target.
    """

    folder: Path
    examples: tuple[Example, ...]
    digest: str
    references: tuple[tuple[str, str | None], ...] = ()
    reference_places: tuple[str, ...] = ()
    report: LoadReport = field(default_factory=LoadReport)
    excludes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> CustomSet: ...

    def __getitem__(self, index: int | slice) -> Example | CustomSet:
        """One portrait, or a set of some of them with the same references and digest."""
        if isinstance(index, slice):
            return replace(self, examples=self.examples[index])
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        captions: str = "named",
        *,
        target_text: str | None = None,
        replaces: str | None = None,
        background: str = "white",
        alpha_as_mask: bool = False,
        shape: str = "square",
        repair: bool = False,
        excludes: Sequence[str] = (),
    ) -> CustomSet:
        """Read and check a folder, and log once what was done to how many portraits.

        Args:
            folder: with the images and the texts.
            captions: ``named`` reads ``metadata.jsonl``, or else ``metadata.csv``, or else the ``.txt`` beside each
                picture; ``txt`` reads these even if there is metadata; ``silent`` reads ``metadata.silent.jsonl``, a
                version of the tiny world's sets whose captions do not name the spurious attributes.
            target_text: the target, given once instead of in every line.
            replaces: the phrase that it takes the place of, given once instead of in every line.
            background: colour that transparent pictures are composed on.
            alpha_as_mask: whether the alpha channel of a picture without a mask file becomes its mask: the target may
                act where the picture is opaque.
            shape: ``square`` crops every portrait to the square around its centre; ``buckets`` keeps them whole, and
                encoding crops each to the nearest of a few aspect ratios (:func:`spf_lite.data.sets.geometry.buckets`).
            repair: whether a target inside a base text is taken out of it, instead of refused.
            excludes: phrases that no text holds together with the target, such as "glasses" with "sunglasses". This set
                may have none of them. Sets of targets that are learned afterwards may: their texts that ask for this
                target as well leave the phrases out.

        Raises:
            CustomSetError: if a text or an image is missing, damaged, incomplete, or the base text holds the target.
        """
        if captions not in CAPTIONS:
            raise CustomSetError(f"captions={captions!r}: expected one of {', '.join(CAPTIONS)}")
        if shape not in SHAPES:
            raise CustomSetError(f"shape={shape!r}: expected one of {', '.join(SHAPES)}")
        background_color(background)
        target_text, replaces = _option("target_text", target_text), _option("replaces", replaces)
        folder, digest = Path(folder).expanduser(), hashlib.sha256()
        examples: list[Example] = []
        counts: Counter[str] = Counter()
        for line in _lines(folder, captions, digest):
            texts = texts_of(line, target_text, replaces, repair)
            picture, mask = _read_pictures(folder, line, background, alpha_as_mask, digest)
            image, cut = _shaped(picture.image, shape)
            mask = None if mask is None else _shaped(mask, shape)[0]
            parts = texts.base_text, texts.target_text, texts.replaces, texts.phrases
            examples.append(Example(image, *parts, mask, line.where))
            counts.update([*picture.treatments, *cut, *texts.treatments])
            if texts.target_text != examples[0].target_text:
                raise CustomSetError(
                    f"{line.where}: the target is {texts.target_text!r}, in the first line it is "
                    f"{examples[0].target_text!r}: a custom set has one target"
                )
        if not examples:
            raise CustomSetError(f"{folder}: the set is empty")
        references, places = [], []
        if (folder / REFERENCE_FILE).exists():
            for line in _json_lines(folder / REFERENCE_FILE, digest):
                if line.base_text is None:
                    raise CustomSetError(f"{line.where}: 'base_text' is missing, empty or not a text")
                texts = texts_of(line, examples[0].target_text, replaces, repair)
                references.append((texts.base_text, texts.replaces))
                places.append(line.where)
        excluded = tuple(phrase for given in excludes if (phrase := _option("excludes", given)))
        options = target_text, replaces, background, alpha_as_mask, shape, repair
        if options != (None, None, "white", False, "square", False):
            digest.update(repr(options).encode())
        report = LoadReport(len(examples), dict(counts))
        logger.info("%s", report)
        return cls(folder, tuple(examples), digest.hexdigest(), tuple(references), tuple(places), report, excluded)


def _option(name: str, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise CustomSetError(f"{name}={value!r}: it is empty")
    try:
        return None if value is None else unicodedata.normalize("NFC", value.encode().decode().strip())
    except UnicodeEncodeError as error:
        raise CustomSetError(f"{name}={value!r} is not valid Unicode ({error.reason})") from error


def _lines(folder: Path, captions: str, digest: hashlib._Hash) -> Iterator[Line]:
    """The entry of each portrait, from the metadata or the captions; the bytes of these files go into the digest."""
    table = folder / "metadata.csv"
    jsonl = folder / CAPTION_FILES.get(captions, "")
    if captions == "named" and jsonl.exists() and table.exists():
        raise CustomSetError(f"{folder}: there are a {jsonl.name} and a {table.name}: keep the one that counts")
    if captions == "silent" or (captions == "named" and jsonl.exists()):
        yield from _json_lines(jsonl, digest)
    elif captions == "named" and table.exists():
        content = read_bytes(table, str(folder), "file")
        digest.update(content)
        yield from read_csv(table, content)
    else:
        for line, content in read_txt(folder):
            digest.update(content)
            yield line


def _json_lines(path: Path, digest: hashlib._Hash) -> Iterator[Line]:
    content = read_bytes(path, str(path.parent), "file")
    digest.update(content)
    yield from read_jsonl(path, content)


def _read_pictures(
    folder: Path, line: Line, background: str, alpha_as_mask: bool, digest: hashlib._Hash
) -> tuple[Picture, Image.Image | None]:
    if line.file_name is None:
        raise CustomSetError(f"{line.where}: 'file_name' is missing, empty or not a text")
    path = inside(folder, line.file_name, line.where)
    content = read_bytes(path, line.where, "image")
    digest.update(content)
    picture = read_picture(content, path, line.where, background)
    if line.mask_file is None:
        return picture, picture.opacity if alpha_as_mask else None
    path = inside(folder, line.mask_file, line.where)
    content = read_bytes(path, line.where, "mask")
    digest.update(content)
    return picture, read_mask(content, path, line.where, picture)


def _shaped(image: Image.Image, shape: str) -> tuple[Image.Image, list[str]]:
    """The picture, cropped if the shape is ``square``, and reduced for memory; and the treatments."""
    cropped = crop_to(image, (1, 1)) if shape == "square" else image
    reduced = reduce_to_memory(cropped)
    done = ["cropped from non-square"] if cropped.size != image.size else []
    return reduced, [*done, *([f"reduced to {LARGEST_SHORT_SIDE} pixels"] if reduced.size != cropped.size else [])]
