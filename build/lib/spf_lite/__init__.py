"""SPF-Lite: fine-tune a text-to-image model to a new portrait attribute without semantic pollution.

An open implementation of SPF-Portrait (arXiv 2504.00396). The main job::

    backbone = spf_lite.load("tiny")
    custom_set = spf_lite.CustomSet.load("data_samples/custom/sunglasses")
    trainer = spf_lite.DualPathTrainer(backbone, custom_set, spf_lite.recipe("pure-pairs"), "runs/sunglasses")
    trainer.fit()
    trainer.export("runs/sunglasses/adapter")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spf_lite.config import TrainConfig
    from spf_lite.data.sets.custom_set import CustomSet
    from spf_lite.evaluation.measuring import measure
    from spf_lite.models.backbone import load
    from spf_lite.models.running.sampling import sample
    from spf_lite.training.recipes import recipe
    from spf_lite.training.trainer import DualPathTrainer

__version__ = "0.1.0"
__all__ = ["CustomSet", "DualPathTrainer", "TrainConfig", "__version__", "load", "measure", "recipe", "sample"]

#: Where each public name lives. Imported on first use: the configuration needs none of torch and diffusers.
_HOMES = {
    "CustomSet": "spf_lite.data.sets.custom_set",
    "DualPathTrainer": "spf_lite.training.trainer",
    "TrainConfig": "spf_lite.config",
    "load": "spf_lite.models.backbone",
    "measure": "spf_lite.evaluation.measuring",
    "recipe": "spf_lite.training.recipes",
    "sample": "spf_lite.models.running.sampling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'spf_lite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
