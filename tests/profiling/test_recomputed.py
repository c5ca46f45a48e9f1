from functools import partial

import pytest
import torch

from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.profiling import memory
from spf_lite.profiling.memory import step_memory
from spf_lite.profiling.recomputed import counted_blocks
from spf_lite.profiling.saved import saved_for_backward, storage_key, total_bytes


def test_a_storage_is_counted_once_and_some_not_at_all() -> None:
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(4, 4)
    with saved_for_backward() as saved:
        ((x @ weight) * (x @ weight).view(3, 4)).sum()
    assert storage_key(x) == storage_key(x.view(12)) != storage_key(weight)
    assert total_bytes(saved) - total_bytes(saved, {storage_key(weight)}) == 16 * 4
    assert total_bytes(saved, set(saved)) == 0


@pytest.mark.parametrize("variant", ["plain LoRA", "dual path"])
def test_checkpointing_saves_inputs_and_one_block(variant: str, shapes: Backbone, toy: Backbone) -> None:
    whole, kept = (step_memory(shapes, variant, pixels=64, checkpointing=on) for on in (False, True))
    assert kept.per_portrait["activations"] < 0.5 * whole.per_portrait["activations"]
    assert 0 < kept.per_portrait["largest block"] < whole.per_portrait["activations"]
    assert "largest block" not in whole.per_portrait and not shapes.network.is_gradient_checkpointing
    toy.trainable = Lora(toy.network, memory.RANK, seed=0)
    run = memory.plain_pass if variant == "plain LoRA" else memory.dual_pass
    one, two = (memory._saved(toy, partial(run, toy, size, 8), checkpointing=True) for size in (1, 2))
    saved = kept.per_portrait["activations"] + kept.per_portrait.get("comparing the paths", 0)
    assert saved == pytest.approx(two[0] - one[0], rel=0.01), "as much as real tensors"
    assert kept.per_portrait["largest block"] == pytest.approx(two[1] - one[1], rel=0.01)


def test_a_network_that_checkpoints_does_so_afterwards(toy: Backbone) -> None:
    for on in (False, True):
        toy.network.enable_gradient_checkpointing() if on else toy.network.disable_gradient_checkpointing()
        with counted_blocks(toy.network, set()) as blocks:
            assert toy.network.is_gradient_checkpointing and blocks == []
        assert toy.network.is_gradient_checkpointing == on
