import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from spf_lite.data.sets.captions import occurrences
from spf_lite.data.sets.custom_set import CustomSet, CustomSetError

from ..strategies import Folder, folders

GOOD = {"file_name": "a.png", "base_text": "a person, smiling", "target_text": "sunglasses"}


def write(folder: Path, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(texts), encoding="utf-8")


def test_a_good_set_loads(folder: Path) -> None:
    write(folder, GOOD, {**GOOD, "phrases": ["smiling"], "replaces": "smiling"})
    loaded = CustomSet.load(folder)
    assert len(loaded) == 2 and loaded[0].image.size == (16, 16)
    assert loaded[0].phrases is None and loaded[1].phrases == ("smiling",) and loaded[1].replaces == "smiling"
    assert [example.target_text for example in loaded] == ["sunglasses"] * 2


def test_excluded_phrases_are_given_for_the_whole_set(folder: Path) -> None:
    write(folder, GOOD)
    plain = CustomSet.load(folder)
    given_once = CustomSet.load(folder, excludes=["glasses ", "a visor"])
    assert plain.excludes == () and given_once.excludes == ("glasses", "a visor")
    assert given_once.digest == plain.digest, "this run learns the same"
    for wrong, message in ((" ", "excludes=' ': it is empty"), ("\ud800", "not valid Unicode")):
        with pytest.raises(CustomSetError, match=message):
            CustomSet.load(folder, excludes=[wrong])


def test_references_are_read_and_checked(folder: Path) -> None:
    write(folder, GOOD)
    before = CustomSet.load(folder)
    assert before.references == ()
    good = '{"base_text": "a person, sad"}\n\n{"base_text": "a person, sad", "replaces": "sad"}\n'
    (folder / "references.jsonl").write_text(good, encoding="utf-8")
    after = CustomSet.load(folder)
    assert after.references == (("a person, sad", None), ("a person, sad", "sad"))
    assert after.digest != before.digest
    (folder / "references.jsonl").write_text(good + '{"base_text": ""}\n', encoding="utf-8")
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


def test_a_base_text_with_the_target_is_refused_or_repaired(folder: Path) -> None:
    write(folder, GOOD, {**GOOD, "base_text": "a person, SUNGLASSES, sad"})
    with pytest.raises(CustomSetError, match=r"metadata\.jsonl, line 2: .* already holds the target 'sunglasses'"):
        CustomSet.load(folder)
    repaired = CustomSet.load(folder, repair=True)
    assert repaired[1].base_text == "a person, sad"
    assert repaired.report.treatments == {"with the target taken out of the base text": 1}
    write(folder, GOOD)
    (folder / "references.jsonl").write_text('{"base_text": "a man, sunglasses"}', encoding="utf-8")
    with pytest.raises(CustomSetError, match=r"references\.jsonl, line 1: .* already holds the target"):
        CustomSet.load(folder)
    assert CustomSet.load(folder, repair=True).references == (("a man", None),)


def test_a_set_has_one_target(folder: Path) -> None:
    write(folder, GOOD, {**GOOD, "target_text": "a beard"})
    with pytest.raises(CustomSetError, match=r"line 2: the target is 'a beard', in the first line it is 'sunglasses'"):
        CustomSet.load(folder)


@pytest.mark.parametrize("key", ["file_name", "mask_file"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "set").mkdir()
    for name in ("secret.png", "set/a.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    write(tmp_path / "set", {**GOOD, key: "../secret.png"})
    with pytest.raises(CustomSetError, match=r"line 1: '\.\./secret\.png' leads out of the folder"):
        CustomSet.load(tmp_path / "set")


def test_nothing_depends_on_the_locale(folder: Path) -> None:
    write(folder, {**GOOD, "base_text": "une femme, café"})
    content = (folder / "metadata.jsonl").read_text(encoding="utf-8")
    (folder / "metadata.jsonl").write_text(json.dumps(json.loads(content), ensure_ascii=False), encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from spf_lite.data.sets.custom_set import CustomSet;"
        "from spf_lite.tiny_world.custom_sets import write_custom_set;"
        "(example,) = CustomSet.load(sys.argv[1]); assert example.base_text == 'une femme, caf\\xe9', example;"
        "write_custom_set('beard', Path(sys.argv[2]), 1, 32); CustomSet.load(sys.argv[2]);"
        "(folder := Path(sys.argv[3])).joinpath('metadata.jsonl').unlink();"
        "loaded = CustomSet.load(folder, target_text='\\U0001F60E'); print(ascii(loaded[0].base_text))"
    )
    other = folder / "other"
    other.mkdir()
    Image.new("RGB", (16, 16)).save(other / "a.png")
    (other / "metadata.jsonl").write_text("", encoding="utf-8")
    (other / "a.txt").write_text("une femme, 😎", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, folder, folder / "written", other],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNDEFAULTENCODING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "'une femme'"
    assert "spf_lite" not in done.stderr, "no file is opened in the locale's encoding"


# -- what holds for any folder -----------------------------------------------------------------------------------------


def check(loaded: CustomSet, options: dict[str, Any]) -> None:
    """What holds for any set that was loaded."""
    target = loaded[0].target_text
    assert loaded.report.portraits == len(loaded) > 0
    for example in loaded:
        assert example.image.mode == "RGB" and min(example.image.size) >= 8
        assert options.get("shape") == "buckets" or example.image.width == example.image.height
        assert example.mask is None or example.mask.size == example.image.size
        assert example.target_text == target and target.strip() and example.base_text.strip()
        assert not occurrences(example.base_text, target)
        assert example.replaces is None or example.replaces in example.base_text
        assert all(phrase in example.base_text for phrase in example.phrases or ())
    assert not any(occurrences(text, target) for text, _ in loaded.references)
    assert len(loaded.references) == len(loaded.reference_places)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=folders())
def test_any_folder_is_loaded_as_it_is_meant_or_refused(made: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = made.write(tmp_path_factory.mktemp("set"))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        loaded = CustomSet.load(folder, **made.options)
    except CustomSetError as error:
        assert str(folder) in str(error) or "=" in str(error).split(":")[0], "file, or option"
    else:
        check(loaded, made.options)
        assert CustomSet.load(folder, **made.options).digest == loaded.digest
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_slice_is_a_set_of_some_of_the_portraits(folder: Path) -> None:
    write(folder, GOOD, {**GOOD, "base_text": "a man"}, {**GOOD, "base_text": "a woman"})
    (folder / "references.jsonl").write_text(json.dumps({"base_text": "somebody"}), encoding="utf-8")
    whole = CustomSet.load(folder)
    some = whole[1:]
    assert [example.base_text for example in some] == ["a man", "a woman"]
    assert (some.references, some.digest) == (whole.references, whole.digest)
    assert whole[-1] is some[1]
