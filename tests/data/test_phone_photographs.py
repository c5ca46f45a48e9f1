"""A folder as it comes from a phone: twenty photographs, as many captions, one command."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite.cli import main

from .strategies import ORIENTATION

#: Width and height as cameras have them, a tenth of a side.
SIZES = ((403, 302), (302, 403), (192, 108), (108, 192), (300, 300))


def photograph(number: int) -> Image.Image:
    """A dark figure before a light gradient."""
    width, height = SIZES[number % len(SIZES)]
    y, x = np.mgrid[:height, :width]
    light = np.dstack([x * 255 / width, y * 255 / height, np.full((height, width), 40 + 10 * number)])
    figure = np.hypot(x - width / 2, y - height / 2) < min(width, height) / 3
    light[figure] = (60, 40 + 5 * number, 50)
    return Image.fromarray(light.astype(np.uint8))


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Sixteen JPEGs of mixed orientation, two PNGs with transparency, a scan of 16 bits, a WebP; captions beside."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(20):
        image, exif = photograph(number), Image.Exif()
        exif[ORIENTATION] = (1, 3, 6, 8)[number % 4]
        name = f"IMG_{number:04d}"
        if number < 16:
            image.save(folder / f"{name}.JPG", exif=exif)
        elif number < 18:
            image.putalpha(image.convert("L").point(lambda value: 255 if value < 100 else 0))
            image.save(folder / f"{name}.png")
        elif number == 18:
            deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(deep).save(folder / f"{name}.png")
        else:
            image.save(folder / f"{name}.webp")
        shown = "" if number % 5 == 0 else ", Sunglasses"
        (folder / f"{name}.txt").write_text(f"a person{shown}, in the garden\n", encoding="utf-8-sig")
    return folder


def train(folder: Path, output: Path, model: Path, *options: str) -> int:
    short = ["stage1_steps=2", "stage2_steps=2", "reference_portraits=2", "batch_size=2", "rank=2"]
    changes = [part for change in short for part in ("--set", change)]
    return main(["train", str(folder), str(output), "--model", str(model), "--method", "spf", *changes, *options])


@pytest.mark.parametrize("shape", ["square", "buckets"])
def test_ordinary_photographs_train_with_one_command(
    shape: str, phone: Path, toy_folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spf_lite")
    output = tmp_path / "run"
    assert train(phone, output, toy_folders["epsilon"], "--target-text", "sunglasses", "--shape", shape) == 0
    assert (output / "adapter" / "pytorch_lora_weights.safetensors").stat().st_size > 0
    assert "Data: 20 portraits" in (output / "adapter" / "README.md").read_text(encoding="utf-8")
    (report,) = (entry.message for entry in caplog.records if entry.message.startswith("20 portraits: "))
    for said in ("12 rotated by EXIF", "2 composed on white", "1 scaled to 8 bits", "4 with captions that do not name"):
        assert said in report
    assert ("16 cropped from non-square" in report) == (shape == "square")


def test_what_is_missing_is_said_exactly(
    phone: Path, toy_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*options: str) -> str:
        assert train(phone, tmp_path / "run", toy_folders["epsilon"], *options) != 0
        assert not (tmp_path / "run").exists(), "nothing has begun"
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "IMG_0000.txt: 'target_text' is missing" in refusal() and "--target-text" in refusal()
    (phone / "IMG_0007.txt").write_text("a person wearing sunglasses", encoding="utf-8")
    assert "IMG_0007.txt: 'sunglasses' cannot be told apart" in refusal("--target-text", "sunglasses")
    for number in (3, 7):
        (phone / f"IMG_{number:04d}.txt").unlink()
    said = refusal("--target-text", "sunglasses")
    assert "2 of 20 pictures have no caption: IMG_0003.JPG, IMG_0007.JPG. Write" in said
    (phone / "IMG_0003.JPG").rename(phone / "IMG_0003.HEIC")
    for number in (3, 7):
        (phone / f"IMG_{number:04d}.txt").write_text("a person, sunglasses", encoding="utf-8")
    (phone / "IMG_0003.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert "IMG_0003.HEIC is HEIC, which Pillow cannot read: convert it to JPEG" in refusal("--target-text", "x")
