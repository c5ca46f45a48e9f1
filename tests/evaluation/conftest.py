"""The benchmark at the size of a test."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark, measuring, portraits
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample
from spf_lite.tiny_world.custom_sets import write_custom_set
from spf_lite.training.recipes import recipe


@pytest.fixture
def short() -> TrainConfig:
    """A recipe of two steps."""
    return TrainConfig(stage1_steps=1, stage2_steps=1, batch_size=2, rank=2, learning_rate=0.05, checkpoint_every=1)


@pytest.fixture
def small_world(toy_samples: Path, short: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy in the place of the tiny model, recipes of two steps, two denoising steps for each portrait, and four
    portraits in each drawn set."""

    def two_steps(backbone: Backbone, prompts: list[str], **options: Any) -> list[Image.Image]:
        images: list[Image.Image] = sample(backbone, prompts, **{**options, "steps": 2})
        return images

    monkeypatch.setattr(measuring, "sample", two_steps)
    monkeypatch.setattr(portraits, "sample", two_steps)
    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    monkeypatch.setattr(benchmark, "DATA_SAMPLES", toy_samples)
    monkeypatch.setattr(benchmark, "write_custom_set", partial(write_custom_set, count=4, size=64))
    monkeypatch.setattr(benchmark, "recipe", lambda name, seed=0: replace(short, seed=recipe(name, seed).seed))
    return toy_samples
