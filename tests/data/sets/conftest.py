"""A folder with one portrait."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    return tmp_path
