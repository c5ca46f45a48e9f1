"""Recipes of a few steps, portraits of one, a small model."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark, measuring, portraits
from spf_lite.training import recipes

from .shell import SHORT, one_step


@pytest.fixture
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = recipes.recipe

    def short(name: str, seed: int = 0, after: bool = False) -> TrainConfig:
        return replace(SHORT, seed=known(name, seed).seed, checkpoint_every=1)

    monkeypatch.setattr(recipes, "recipe", short)
    monkeypatch.setattr(benchmark, "recipe", short)


@pytest.fixture
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portraits of one step."""

    monkeypatch.setattr(measuring, "sample", one_step)
    monkeypatch.setattr(portraits, "sample", one_step)


@pytest.fixture
def model(toy_samples: Path) -> str:
    return str(toy_samples / "tiny-portraits")


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a command says."""
    caplog.set_level(logging.INFO)
    return caplog
