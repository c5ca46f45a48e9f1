"""DINO on a random model, LPIPS on a stand-in for torchmetrics: no weights are there to load."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from spf_lite.audit.measures.comparisons import Dino, Lpips

from ..conftest import flat, images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    BitImageProcessor(do_center_crop=False, size=size).save_pretrained(folder)
    return folder


def test_dino_is_one_for_the_same_picture_and_less_for_another(dino_folder: Path) -> None:
    dino = Dino.load(str(dino_folder), CPU)
    half = flat(0.0)
    half[0, :8] = 1.0
    same, other = dino(images(np.concatenate([half, half])), images(np.concatenate([half, half[:, ::-1]])))
    assert dino.measure == "DINO" and same == pytest.approx(1.0) and other < 0.99999


def test_dino_of_nothing_is_refused(tmp_path: Path, toy_folder: Path) -> None:
    with pytest.raises(ValueError, match="no DINO model in"):
        Dino.load(str(tmp_path), CPU)
    with pytest.raises(ValueError, match="is a CLIPModel: expected a vision transformer"):
        Dino.load(str(toy_folder / "clip"), CPU)


def test_lpips_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(ValueError, match=r"pip install 'spf-lite\[lpips\]'"):
        Lpips.load(CPU)


def test_lpips_asks_torchmetrics_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Metric:
        def __init__(self, net_type: str, normalize: bool) -> None:
            assert (net_type, normalize) == ("alex", True), "pictures are in [0, 1]"

        def eval(self) -> "Metric":
            return self

        def to(self, device: torch.device) -> "Metric":
            return self

        def __call__(self, first: Tensor, second: Tensor) -> Tensor:
            asked.append(tuple(first.shape))
            return (first - second).abs().mean()

    package = ModuleType("torchmetrics.image.lpip")
    vars(package).update(vars(SimpleNamespace(LearnedPerceptualImagePatchSimilarity=Metric)))
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", package)
    found = Lpips.load(CPU)(images(flat(0.0, 1.0)), images(flat(0.0, 0.0)))
    assert found.tolist() == [0.0, 1.0] and asked == [(1, 3, 16, 16)] * 2
