"""Models that are loaded for each test: where they go depends on the device that the test finds."""

from pathlib import Path

import pytest

from spf_lite.models.backbone import Backbone

from ..conftest import load_toy


@pytest.fixture(params=["epsilon", "v_prediction"])
def backbone(request: pytest.FixtureRequest, toy_folders: dict[str, Path]) -> Backbone:
    """A toy for each prediction type."""
    return load_toy(toy_folders[request.param])


@pytest.fixture
def toy(toy_folders: dict[str, Path]) -> Backbone:
    """A toy (velocity prediction)."""
    return load_toy(toy_folders["v_prediction"])
