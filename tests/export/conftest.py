"""The exported tiny model: the one of the playground if the book was built with this library, else exported now."""

from pathlib import Path

import pytest
from execution_key import ROOT, digest
from playground import INPUTS, exported

from spf_lite.models.backbone import Backbone, load


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load("tiny", device="cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``spf-lite export-onnx``."""
    built = ROOT / "_build" / ".playground"
    return exported(built if (built / digest(INPUTS)).is_dir() else tmp_path_factory.mktemp("export"))
