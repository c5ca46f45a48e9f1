"""The audit on transformers: cross-attention with a masked T5, and joint attention."""

from pathlib import Path

import torch

from spf_lite.audit.auditing import audit
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import load

from ..backbones.test_pixart import folder as pixart_folder  # noqa: F401
from ..backbones.test_sd3 import folder as sd3_folder  # noqa: F401
from .conftest import PROMPTS


def check(model: Path, adapter: Path) -> None:
    """An adapter of random numbers moves portraits, and every measure is there."""
    backbone = load(str(model))
    trained = make_trainable("lora", backbone.network, rank=2, seed=0, steps=10)
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.add_(0.3)
    for name, content in backbone.architecture.adapter_files(trained.lora_layers(), {}).items():
        (adapter / name).write_bytes(content)
    report = audit(load(str(model)), adapter, PROMPTS[:2], target_text="sunglasses", steps=1).report
    assert {"reconstruction", "leakage", "change outside", "CLIP-T gain"} <= set(report.estimates())
    assert report.estimates()["pixel change"].mean > 0


def test_pixart(pixart_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    check(pixart_folder, tmp_path)


def test_stable_diffusion_3(sd3_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    check(sd3_folder, tmp_path)
