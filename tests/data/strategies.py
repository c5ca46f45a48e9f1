"""Hypothesis strategies for everything that a custom set can hold, right and wrong.

For a suite that drives many generated inputs:

* :func:`pictures`: encoded files of every mode, format, size and EXIF orientation that Pillow writes, and
  :func:`damage` for broken ones; :func:`shown` says what a viewer shows of one.
* :func:`folders`: a whole custom set as file names and bytes with the options to load it by; about half are sound.
* :func:`prompt_pairs`: arguments of :func:`spf_lite.data.prompts.encode_pair`.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageOps

ORIENTATION = 0x0112
#: Formats to the modes that Pillow writes into them.
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("1", "L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I;16"),
}
#: Formats that hold EXIF.
WITH_EXIF = ("PNG", "JPEG", "TIFF", "WEBP")


@dataclass(frozen=True)
class PictureFile:
    """An encoded picture: its bytes, and how it was made."""

    content: bytes
    format: str
    mode: str
    orientation: int

    @property
    def suffix(self) -> str:
        return "." + self.format.lower()


def pixels(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """A picture of random blocks: JPEG keeps them apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 3, 4), dtype=np.uint8)
    image = Image.fromarray(coarse, "RGBA" if mode in ("RGBA", "LA") else None)
    image = image.resize(size, Image.Resampling.NEAREST)
    if mode in ("RGBA", "LA"):
        return image.convert(mode)
    if mode == "CMYK":
        return Image.fromarray(np.asarray(image), "CMYK") if image.mode != "CMYK" else image
    gray = np.asarray(image.convert("L"))
    if mode.startswith("I;16"):
        return Image.fromarray((gray.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2"))
    if mode == "I":
        return Image.fromarray(gray.astype(np.int32) * int(rng.choice([1, 257])))
    if mode == "F":
        return Image.fromarray((gray / rng.choice([1, 255])).astype(np.float32))
    rgb = image.convert("RGB")
    if mode == "LAB":
        return Image.fromarray(np.asarray(rgb), "LAB")
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


@st.composite
def pictures(draw: st.DrawFn, smallest: int = 1, largest: int = 24) -> PictureFile:
    """Any mode and format, any size, any EXIF orientation (also ones that do not exist), frames, transparency."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from(FORMATS[kind]))
    size = draw(st.tuples(*[st.integers(smallest, largest)] * 2))
    image = pixels(mode, size, draw(st.integers(0, 999)))
    options: dict[str, Any] = {}
    orientation = 1
    if kind in WITH_EXIF:
        orientation = draw(st.integers(0, 9))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    if kind == "PNG" and mode == "P":
        options["transparency"] = draw(st.sampled_from([0, 3, bytes([0, 128, 255]), None]))
    if kind == "PNG" and mode in ("L", "RGB", "I;16"):
        first = image.getpixel((0, 0))
        options["transparency"] = draw(st.sampled_from([first, None]))
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "GIF" and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [pixels(mode, size, 1)], "transparency": 0}
    file = io.BytesIO()
    image.save(file, kind, **{name: value for name, value in options.items() if value is not None})
    return PictureFile(file.getvalue(), kind, mode, orientation)


def damage(content: bytes) -> st.SearchStrategy[bytes]:
    """A file that was cut off, has wrong bytes, or is none."""

    def overwrite(places: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for place, value in places:
            changed[place % len(changed)] = value
        return bytes(changed)

    wrong = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8).map(overwrite)
    return st.one_of(st.integers(0, len(content) - 1).map(lambda stop: content[:stop]), wrong, st.binary(max_size=40))


def shown(content: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """What a viewer shows: turned by EXIF, gray of many bits scaled, composed on the background."""
    with Image.open(io.BytesIO(content)) as opened:
        kind = opened.format
        opened.load()
        image = ImageOps.exif_transpose(opened)
    key = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(float)
        white = 65_535 if image.mode.startswith("I;16") or (kind, image.mode) == ("PPM", "I") else None
        if white is None:
            white = 1 if image.mode == "F" and values.max() <= 1 else 255 if values.max() <= 255 else 65_535
        alpha = np.where(values == key, 0, 255) if image.mode.startswith("I;16") else np.full(values.shape, 255)
        gray = np.rint(values / white * 255)
        image = Image.fromarray(np.dstack([gray, gray, gray, alpha]).astype(np.uint8), "RGBA")
    elif image.mode in ("LA", "PA", "RGBA") or key is not None:
        image = image.convert("RGBA")
    else:
        image = image.convert("RGB").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")


# -- texts -------------------------------------------------------------------------------------------------------------

WORDS = ("a", "woman", "man", "red", "hair", "T-shirt", "smiling", "é", "sun", "glasses", "blue coat", "'s", "😎")
TARGETS = ("sunglasses", "a beard", "pink hair", "😎", "a dress", "Straße", "t-shirt")
words = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
#: Between two commas; may be nonsense, but is never empty.
phrases = (
    st.lists(words, min_size=1, max_size=3).map(" ".join).map(lambda text: text.replace(",", " ")).filter(str.strip)
)
targets = st.one_of(st.sampled_from(TARGETS), phrases)


@st.composite
def captions(draw: st.DrawFn, target: str) -> str:
    """A caption that shows a target between commas, inside a phrase, in other letters, twice, or not at all."""
    parts = draw(st.lists(phrases, max_size=4))
    shape = draw(st.sampled_from([target, target, target.upper(), f"a woman with {target}", f"{target},{target}", ""]))
    place = draw(st.integers(0, len(parts)))
    return draw(st.sampled_from([", ", ",", " , "])).join([*parts[:place], shape, *parts[place:]])


@st.composite
def prompt_pairs(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of ``encode_pair`` but for the tokenizer: sound, empty, too long, with phrases that are not there."""
    parts = draw(st.lists(phrases, max_size=12))
    base = draw(st.sampled_from([", ", ",", " "])).join(parts)
    some = st.one_of(phrases, st.sampled_from(parts) if parts else phrases, st.just(""))
    return {
        "base_text": base,
        "target_text": draw(st.one_of(targets, st.just(" "), st.just("hair " * 40))),
        "replaces": draw(st.one_of(st.none(), some)),
        "phrases": draw(st.one_of(st.none(), st.lists(some, max_size=4))),
    }


# -- folders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A custom set that is not written yet: file names to bytes, and the options of ``CustomSet.load``."""

    files: dict[str, bytes]
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)
file_names = st.sampled_from(["../a.png", "/etc/hostname", "C:\\a.png", "nowhere.png", "a\0b", "x" * 400, ".", ""])
#: One thing that may be wrong with a folder; half of them have nothing wrong.
PICTURE_FAULTS = ("damaged picture", "small picture", "mask of another size", "transparent picture")
LINE_FAULTS = ("dropped key", "wrong type", "file name", "surrogate", "target in base text", "other target", "any text")
FILE_FAULTS = ("broken line", "wrong encoding", "no captions", "two kinds of metadata", "reference text")
OPTION_FAULTS = ("background", "target_text", "replaces")
FAULTS = (*PICTURE_FAULTS, *LINE_FAULTS, *FILE_FAULTS, *OPTION_FAULTS)


def sound_caption(target: str) -> st.SearchStrategy[str]:
    """A caption that names the target between commas, or not at all."""
    return st.builds(
        lambda before, shown, after: ", ".join([*before, *([target] if shown else []), *after]),
        st.lists(st.sampled_from(("a woman", "red hair", "é", "smiling")), min_size=1, max_size=3),
        st.booleans(),
        st.lists(st.sampled_from(("a blue coat", "at sea")), max_size=2),
    )


@st.composite
def entries(draw: st.DrawFn, name: str, target: str, fault: str) -> dict[str, Any]:
    """A line of metadata: sound, or with one thing wrong."""
    entry: dict[str, Any] = {"file_name": name, "target_text": target}
    if draw(st.booleans()):
        parts = draw(st.lists(st.sampled_from(("a woman", "red hair", "é", "a blue coat")), min_size=1, max_size=4))
        entry["base_text"] = ", ".join(parts)
        more = [{}, {"phrases": parts}, {"replaces": parts[0]}, {"mask_file": "0.mask.png"}, {"text": "unused"}]
        entry |= draw(st.sampled_from(more if name.startswith("0.") else more[:3]))
    else:
        entry["text"] = draw(sound_caption(target))
    match fault:
        case "dropped key":
            entry.pop(draw(st.sampled_from(sorted(entry))))
        case "wrong type":
            entry[draw(st.sampled_from(sorted(entry)))] = draw(json_values)
        case "file name":
            entry[draw(st.sampled_from(["file_name", "mask_file"]))] = draw(file_names)
        case "surrogate":
            entry["target_text"] = "a \ud83d beard"
        case "target in base text":
            entry["base_text"] = draw(st.sampled_from([f"a person, {target}", target.upper(), f"{target} on a person"]))
        case "other target":
            entry["target_text"] = draw(targets)
        case "any text":
            key = draw(st.sampled_from(["base_text", "text"]))
            entry.pop("base_text", None)
            entry[key] = draw(captions(target))
    return entry


@st.composite
def folders(draw: st.DrawFn) -> Folder:
    """A custom set in each of its layouts: half of them sound, the others with one of :data:`FAULTS`."""
    fault = draw(st.sampled_from((*["none"] * len(FAULTS), *FAULTS)))
    target = draw(st.sampled_from(TARGETS))
    count = draw(st.integers(1, 3))
    bad = draw(st.integers(0, count - 1))
    files: dict[str, bytes] = {}
    for number in range(count):
        picture = draw(pictures(smallest=8, largest=20))
        content = picture.content
        if fault == "damaged picture" and number == bad:
            content = draw(damage(content))
        elif fault == "small picture" and number == bad:
            content = draw(pictures(smallest=1, largest=7)).content
        elif fault == "transparent picture" and number == bad:
            file = io.BytesIO()
            Image.new("RGBA", (9, 12), (255, 0, 255, 0)).save(file, "PNG")
            content = file.getvalue()
        files[f"{number}{picture.suffix}"] = content
        if number == 0:
            mask = io.BytesIO()
            size = (5, 99) if fault == "mask of another size" else shown(picture.content).size
            Image.new("1", size, 1).save(mask, "PNG")
    names = list(files)
    files["0.mask.png"] = mask.getvalue()
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {} if fault in ("dropped key", "other target") else {"target_text": st.just(target)},
            optional={
                "shape": st.sampled_from(["square", "buckets"]),
                "alpha_as_mask": st.booleans(),
                "repair": st.booleans(),
                "background": st.sampled_from(["white", "#102030"]),
            },
        )
    )
    wrong = {
        "background": "nonsense",
        "target_text": draw(st.sampled_from([" ", "\ud83d", "freckles"])),
        "replaces": "x",
    }
    options |= {fault: wrong[fault]} if fault in wrong else {}
    layout = draw(st.sampled_from(["jsonl", "jsonl", "csv", "txt"]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    if fault == "no captions":
        return Folder(files, options)
    if layout == "jsonl" or fault in LINE_FAULTS or fault == "two kinds of metadata":
        made = [draw(entries(name, target, fault if number == bad else "")) for number, name in enumerate(names)]
        lines = list(map(json.dumps, made))
        if fault == "broken line":
            lines.insert(bad, draw(st.sampled_from(["{", "[1]", "[" * 2000, "9" * 5000, "nul"])))
        if fault == "wrong encoding":
            lines[bad] = "\xff\xfe"
        ends, code = draw(st.sampled_from(["\n", "\r\n"])), "latin-1" if fault == "wrong encoding" else "utf-8"
        files["metadata.jsonl"] = mark + ends.join(lines).encode(code)
    if layout == "csv" or fault == "two kinds of metadata":
        rows = [f'{name},"{draw(sound_caption(target))}",{target}' for name in names]
        if fault == "broken line":
            rows.insert(bad, draw(st.sampled_from(["a,b,c,d", '"', "x"])))
        files["metadata.csv"] = mark + "\n".join(["file_name,text,target_text", *rows]).encode()
    elif layout == "txt":
        for number, name in enumerate(names):
            caption = draw(sound_caption(target)).encode()
            if number == bad and fault in ("broken line", "wrong encoding"):
                caption = draw(st.sampled_from([b"\xff\xff", b" ", target.encode()]))
            files[name.split(".")[0] + ".txt"] = mark + caption
    if fault == "reference text" or draw(st.booleans()):
        text = draw(captions(target)) if fault == "reference text" else "a man, sad"
        files["references.jsonl"] = json.dumps({"base_text": text}).encode()
    return Folder(files, options)
