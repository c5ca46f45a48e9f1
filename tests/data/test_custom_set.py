import json
from pathlib import Path

import pytest
from PIL import Image

from spf_lite.data.custom_set import CustomSet, CustomSetError

GOOD = {"file_name": "a.png", "base_text": "a person, smiling", "target_text": "sunglasses"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    return tmp_path


def write(folder: Path, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(texts))


def test_a_good_set_loads(folder: Path) -> None:
    write(folder, GOOD, {**GOOD, "phrases": ["smiling"], "replaces": "smiling"})
    loaded = CustomSet.load(folder)
    assert len(loaded) == 2 and loaded[0].image.size == (16, 16)
    assert loaded[0].phrases is None and loaded[1].phrases == ("smiling",) and loaded[1].replaces == "smiling"
    assert [example.target_text for example in loaded] == ["sunglasses"] * 2


def test_references_are_read_and_checked(folder: Path) -> None:
    write(folder, GOOD)
    before = CustomSet.load(folder)
    assert before.references == ()
    good = '{"base_text": "a person, sad"}\n\n{"base_text": "a person, sad", "replaces": "sad"}\n'
    (folder / "references.jsonl").write_text(good)
    after = CustomSet.load(folder)
    assert after.references == (("a person, sad", None), ("a person, sad", "sad"))
    assert after.digest != before.digest
    (folder / "references.jsonl").write_text(good + '{"base_text": ""}\n')
    with pytest.raises(CustomSetError, match=r"references\.jsonl, line 4: 'base_text' is missing"):
        CustomSet.load(folder)


def test_the_digest_follows_texts_and_pixels(folder: Path) -> None:
    write(folder, GOOD)
    first = CustomSet.load(folder).digest
    assert CustomSet.load(folder).digest == first
    Image.new("RGB", (16, 16), "blue").save(folder / "a.png")
    second = CustomSet.load(folder).digest
    write(folder, {**GOOD, "target_text": "a beard"})
    assert len({first, second, CustomSet.load(folder).digest}) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: not valid JSON"),
        ([1, 2], "line 2: expected a JSON object, found list"),
        ({**GOOD, "target_text": " "}, "line 2: 'target_text' is missing, empty"),
        ({"file_name": "a.png", "target_text": "x"}, "line 2: 'base_text' is missing"),
        ({**GOOD, "file_name": "b.png"}, "line 2: there is no image .*b.png"),
        (
            {**GOOD, "replaces": "a hat"},
            "line 2: 'replaces' must be a phrase of the base text 'a person, smiling', found 'a hat'",
        ),
        ({**GOOD, "phrases": ["a hat"]}, "line 2: 'phrases' must be phrases of the base text .*, found 'a hat'"),
        ({**GOOD, "phrases": "smiling"}, "line 2: 'phrases' must be a list"),
        ({**GOOD, "mask_file": "b.png"}, "line 2: there is no mask .*b.png"),
        ({**GOOD, "mask_file": 7}, "line 2: 'mask_file' is missing, empty or not a text"),
        ({**GOOD, "mask_file": "small.png"}, r"line 2: the mask is \(8, 16\) pixels, its image \(16, 16\)"),
        ({**GOOD, "mask_file": "corrupt.png"}, r"line 2: the mask .*corrupt\.png is corrupt"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: object, message: str) -> None:
    Image.new("L", (8, 16)).save(folder / "small.png")
    (folder / "corrupt.png").write_bytes((folder / "a.png").read_bytes()[:40])
    write(folder, GOOD, line)
    with pytest.raises(CustomSetError, match=f"metadata.jsonl, {message}"):
        CustomSet.load(folder)


def test_a_corrupt_image_is_named(folder: Path) -> None:
    write(folder, GOOD)
    content = (folder / "a.png").read_bytes()
    for damaged in (content[:40], b"no picture at all"):
        (folder / "a.png").write_bytes(damaged)
        with pytest.raises(CustomSetError, match=r"line 1: the image .*a\.png is corrupt"):
            CustomSet.load(folder)


def test_masks_are_read_and_belong_to_the_set(folder: Path) -> None:
    mask = Image.new("L", (16, 16))
    mask.putpixel((3, 4), 255)
    mask.save(folder / "a.mask.png")
    write(folder, GOOD, {**GOOD, "mask_file": "a.mask.png"})
    without, masked = (loaded := CustomSet.load(folder))
    assert without.mask is None
    assert masked.mask is not None and masked.mask.convert("L").tobytes() == mask.tobytes()
    mask.putpixel((0, 0), 255)
    mask.save(folder / "a.mask.png")
    assert CustomSet.load(folder).digest != loaded.digest


def test_missing_or_empty_metadata(tmp_path: Path) -> None:
    with pytest.raises(CustomSetError, match=r"there is no metadata\.jsonl, no metadata\.csv, and no picture"):
        CustomSet.load(tmp_path)
    with pytest.raises(CustomSetError, match=r"there is no file .*metadata\.silent\.jsonl"):
        CustomSet.load(tmp_path, "silent")
    (tmp_path / "metadata.jsonl").write_text("\n")
    with pytest.raises(CustomSetError, match="the set is empty"):
        CustomSet.load(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CustomSetError, match="cannot be read"):
        CustomSet.load(tmp_path)
    with pytest.raises(CustomSetError, match="expected one of named, silent, txt"):
        CustomSet.load(tmp_path, "loud")
