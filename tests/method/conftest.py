"""What the tests of the method share: an encoded item, a batch, and a change of what is trained."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from spf_lite.choices import KINDS, PRECISIONS
from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.prompts import encode_pair
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text

BASE = "a person, red curly hair, blue hoodie"
#: Every term that needs no extractor has a weight.
ALL = TrainConfig(
    weight_text=1.0,
    weight_fine=1.0,
    weight_output=1.0,
    weight_enhancement=1.0,
    weight_reconstruction=1.0,
    weight_prior=1.0,
    reference_portraits=1,
)
DTYPES = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def item(backbone: Backbone, base: str = BASE, is_reference: bool = False) -> Item:
    """A random portrait with real texts."""
    pair = encode_pair(backbone.pipe.tokenizer, base, "sunglasses")
    generator = torch.Generator().manual_seed(len(base))
    features = torch.nn.functional.normalize(torch.randn(2, 24, generator=generator), dim=-1)
    distances = torch.rand(len(pair.phrases), generator=generator)
    latents = torch.randn(4, 8, 8, generator=generator)
    base_hidden, complete = encode_text(backbone.pipe, torch.stack([pair.base_ids, pair.complete_ids]))
    return Item(latents, pair, base_hidden, complete, distances, features[0], features[1], is_reference=is_reference)


def move(trained: Trainable, distance: float = 0.2) -> None:
    """Change what is trained, as training would."""
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.add_(distance)


def train(backbone: Backbone, kind: str = "lora") -> Trainable:
    """Put something trainable on a backbone and change it."""
    backbone.trainable = make_trainable(kind, backbone.pipe.unet, rank=2, seed=0, steps=10)
    move(backbone.trainable)
    return backbone.trainable


def autocast(precision: str) -> AbstractContextManager[object]:
    """Autocast on the CPU as ``mixed_precision`` names it."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def gradients(loss: Tensor, trained: Trainable) -> list[Tensor]:
    """The gradient of every trained parameter; fails if the loss does not depend on one."""
    return list(torch.autograd.grad(loss, trained.parameters))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)
