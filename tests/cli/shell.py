"""What the tests of commands share: calls as from a shell."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spf_lite import cli
from spf_lite.config import TrainConfig
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample

#: A run of three steps.
SHORT = TrainConfig(stage1_steps=2, stage2_steps=1, batch_size=2, rank=2, learning_rate=0.05)


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command leaves on stderr."""
    try:
        status: object = run(*arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if not line.startswith("Token indices sequence length")]
    start = f"spf-lite {arguments[0]}: "
    assert line.startswith(start)
    return line.removeprefix(start)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def copy_of(folder: Path, other: Path) -> Path:
    """The same folder under another name."""
    return Path(shutil.copytree(folder, other))


def one_step(backbone: Backbone, prompts: list[str], **options: Any) -> list[Image.Image]:
    """As :func:`spf_lite.sample`, in one denoising step."""
    images: list[Image.Image] = sample(backbone, prompts, **{**options, "steps": 1})
    return images
