"""The weights without earlier adapters, for a while."""

import pytest
import torch

from spf_lite.models.adapters.lora_file import Factors
from spf_lite.models.adapters.original import OriginalWeights
from spf_lite.models.adapters.stack import merge
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone

from ..conftest import without_grad

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.mark.parametrize("kind", [None, "lora", "weights"])
def test_the_original_weights_serve_for_a_while(toy: Backbone, kind: str | None) -> None:
    original = without_grad(toy)
    outputs, inputs = toy.network.get_submodule(LAYER).weight.shape
    before = merge(toy.network, {LAYER: Factors(torch.ones(1, inputs), torch.ones(outputs, 1))})
    if kind:
        make_trainable(kind, toy.network, rank=2, seed=0, steps=1)
    merged, weights = without_grad(toy), OriginalWeights(toy.network, before)
    assert not torch.allclose(merged, original, atol=1e-3)
    with weights.in_place():
        assert torch.equal(without_grad(toy), original)
    assert torch.equal(without_grad(toy), merged)
    with pytest.raises(KeyError, match="stop"), weights.in_place():
        raise KeyError("stop")
    assert torch.equal(without_grad(toy), merged)
