"""Custom sets as users have them: photographs of any size, captions beside them, tables."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite.data.sets.custom_set import CustomSet, CustomSetError, LoadReport

from ..strategies import ORIENTATION
from .test_custom_set import GOOD, write

# -- pictures ----------------------------------------------------------------------------------------------------------


def save(path: Path, image: Image.Image, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Four pictures: turned by EXIF, transparent, wide, and as it should be."""
    save(tmp_path / "turned.jpg", Image.new("RGB", (60, 40), "red"), 6)
    clear = Image.new("RGBA", (16, 16), (255, 0, 255, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 8, 16))
    clear.save(tmp_path / "clear.png")
    wide = Image.new("RGB", (60, 20), "blue")
    wide.paste("green", (20, 0, 40, 20))
    wide.save(tmp_path / "wide.png")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    write(tmp_path, *({**GOOD, "file_name": name} for name in ("turned.jpg", "clear.png", "wide.png", "a.png")))
    return tmp_path


def test_the_report_counts_what_was_done(phone: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "spf_lite"):
        loaded = CustomSet.load(phone)
    done = {"rotated by EXIF": 1, "cropped from non-square": 2, "composed on white": 1}
    assert loaded.report == LoadReport(4, done)
    said = "4 portraits: 1 rotated by EXIF, 2 cropped from non-square, 1 composed on white"
    assert [entry.message for entry in caplog.records] == [said] == [str(loaded.report)]
    write(phone, GOOD)
    assert str(CustomSet.load(phone).report) == "1 portrait: taken as they are"


def test_portraits_are_cropped_to_a_square_or_kept_for_buckets(phone: Path) -> None:
    square = CustomSet.load(phone)
    assert [example.image.size for example in square] == [(40, 40), (16, 16), (20, 20), (16, 16)]
    assert square[2].image.getcolors() == [(400, (0, 128, 0))], "the middle third"
    kept = CustomSet.load(phone, shape="buckets")
    assert [example.image.size for example in kept] == [(40, 60), (16, 16), (60, 20), (16, 16)]
    assert kept.digest != square.digest, "other options, other data"
    assert CustomSet.load(phone, shape="square").digest == square.digest
    with pytest.raises(CustomSetError, match="shape='round': expected one of square, buckets"):
        CustomSet.load(phone, shape="round")


def test_the_alpha_channel_becomes_the_mask_where_asked(phone: Path) -> None:
    assert all(example.mask is None for example in CustomSet.load(phone))
    masks = [example.mask for example in CustomSet.load(phone, alpha_as_mask=True, background="#ffcc00")]
    assert masks[0] is masks[2] is masks[3] is None
    assert masks[1] is not None
    expected = np.tile(np.array([255] * 8 + [0] * 8, dtype=np.uint8), (16, 1))
    assert np.array_equal(np.asarray(masks[1]), expected)
    with pytest.raises(CustomSetError, match="background='clear': expected a colour"):
        CustomSet.load(phone, background="clear")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (41, 64)])
def test_a_mask_has_the_very_same_geometry_as_its_picture(
    folder: Path, orientation: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    blob = np.zeros((size[1], size[0]), dtype=np.uint8)
    blob[5:30, 8:25] = rng.integers(0, 2, (25, 17)) * 255
    save(folder / "a.png", Image.fromarray(blob).convert("RGB"), orientation)
    save(folder / "a.mask.png", Image.fromarray(blob), orientation)
    write(folder, {**GOOD, "mask_file": "a.mask.png"})
    for shape in ("square", "buckets"):
        (example,) = CustomSet.load(folder, shape=shape)
        assert example.mask is not None and example.mask.mode == "L"
        assert np.array_equal(np.asarray(example.mask), np.asarray(example.image)[..., 0])


def test_large_photographs_are_reduced_for_memory(folder: Path) -> None:
    Image.new("RGB", (3000, 1500)).save(folder / "a.png")
    Image.new("L", (3000, 1500), 255).save(folder / "a.mask.png")
    write(folder, {**GOOD, "mask_file": "a.mask.png"})
    for shape, size in (("square", (1024, 1024)), ("buckets", (2048, 1024))):
        loaded = CustomSet.load(folder, shape=shape)
        assert loaded[0].image.size == size and loaded[0].mask is not None and loaded[0].mask.size == size
        assert loaded.report.treatments["reduced to 1024 pixels"] == 1


def test_pictures_that_show_nothing_are_refused(folder: Path) -> None:
    write(folder, GOOD)
    Image.new("RGB", (7, 400)).save(folder / "a.png")
    with pytest.raises(CustomSetError, match=r"line 1: the image .*a\.png has \(7, 400\) pixels: at least 8 a side"):
        CustomSet.load(folder)


# -- texts -------------------------------------------------------------------------------------------------------------


def test_captions_beside_pictures_with_the_target_given_once(phone: Path) -> None:
    (phone / "metadata.jsonl").unlink()
    captions = {"turned": "a woman, Sunglasses, sad", "clear": "a man", "wide": "sunglasses, a man", "a": "a child."}
    for name, caption in captions.items():
        (phone / f"{name}.txt").write_text(caption, encoding="utf-8")
    loaded = CustomSet.load(phone, target_text="sunglasses")
    texts = {Path(example.where).stem: example.base_text for example in loaded}
    assert texts == {"turned": "a woman, sad", "clear": "a man", "wide": "a man", "a": "a child."}
    assert {example.target_text for example in loaded} == {"sunglasses"}
    assert loaded.report.treatments["with captions that do not name the target"] == 2
    with pytest.raises(CustomSetError, match=r"a\.txt: 'target_text' is missing.* once for all lines"):
        CustomSet.load(phone)
    with pytest.raises(CustomSetError, match="target_text=' ': it is empty"):
        CustomSet.load(phone, target_text=" ")
    write(phone, GOOD)
    assert len(CustomSet.load(phone)) == 1, "metadata come first"
    assert len(CustomSet.load(phone, "txt", target_text="sunglasses")) == 4
    before = loaded.digest
    (phone / "a.txt").write_text("a girl", encoding="utf-8")
    assert CustomSet.load(phone, "txt", target_text="sunglasses").digest != before


def test_tables_of_captions_as_hugging_face_has_them(folder: Path) -> None:
    (folder / "metadata.csv").write_text('file_name,text\na.png,"a man, sunglasses"\n', encoding="utf-8")
    assert CustomSet.load(folder, target_text="sunglasses")[0].base_text == "a man"
    write(folder, {"file_name": "a.png", "text": "a man in a dress"})
    with pytest.raises(CustomSetError, match=r"there are a metadata\.jsonl and a metadata\.csv"):
        CustomSet.load(folder, target_text="sunglasses")
    (folder / "metadata.csv").unlink()
    (example,) = CustomSet.load(folder, target_text="a dress", replaces="a coat")
    assert (example.base_text, example.replaces) == ("a man in a coat", "a coat")
