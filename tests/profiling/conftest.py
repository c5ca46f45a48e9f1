from pathlib import Path

import pytest

from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.profiling import memory

from ..conftest import load_toy


@pytest.fixture
def shapes(toy_folders: dict[str, Path]) -> Backbone:
    """The toy with an adapter, on the meta device."""
    backbone = load_toy(toy_folders["v_prediction"])
    backbone.trainable = Lora(backbone.pipe.unet, memory.RANK, seed=0)
    backbone.clip.model.to("meta")
    for name in ("mean", "std"):
        setattr(backbone.clip, name, getattr(backbone.clip, name).to("meta"))
    if backbone.preview is not None:
        backbone.preview.to("meta")
    backbone.pipe.to("meta")
    return backbone
