from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.profiling import memory
from spf_lite.profiling.like_cuda import LikeCuda
from spf_lite.profiling.memory import VARIANTS, StepMemory, sd15_on_meta, step_memory


@pytest.mark.parametrize(("variant", "run"), [("plain LoRA", memory.plain_pass), ("dual path", memory.dual_pass)])
def test_the_meta_device_saves_as_much_for_backward_as_real_tensors(
    variant: str, run: Callable[[Backbone, int, int], Tensor], shapes: Backbone, toy: Backbone
) -> None:
    toy.trainable = Lora(toy.pipe.unet, memory.RANK, seed=0)
    one, two = (memory._saved(toy, partial(run, toy, size, 8))[0] for size in (1, 2))
    counted = sum(step_memory(shapes, variant, pixels=64).per_portrait.values())
    assert one > 100_000
    assert counted == pytest.approx(two - one, rel=0.01)


def test_emulated_autocast_saves_as_much_for_backward_as_the_real_one(shapes: Backbone, toy: Backbone) -> None:
    toy.trainable = Lora(toy.pipe.unet, memory.RANK, seed=0)

    def autocast(size: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return memory.plain_pass(toy, size, 8)

    real = [memory._saved(toy, partial(autocast, size))[0] for size in (1, 2)]
    # On a CPU, autocast computes the same operations in 16 bits as on CUDA, but of ours only the loss in 32.
    counted = []
    for size in (1, 2):
        with LikeCuda(torch.bfloat16, high={F.mse_loss}):
            counted.append(memory._saved(shapes, partial(memory.plain_pass, shapes, size, 8))[0])
    assert counted == pytest.approx(real, rel=0.03)


def test_stable_diffusion_by_cause_variant_and_precision(toy: Backbone) -> None:
    full, half = sd15_on_meta(toy), sd15_on_meta(toy, torch.float16)
    found = {variant: step_memory(full, variant) for variant in VARIANTS}
    unet = 4 * 859_520_964
    for variant, counted in found.items():
        parts = counted.parts(1)
        assert parts["UNet"] == unet
        assert parts.get("second UNet", 0) == (unet if variant == "two models" else 0)
        assert counted.total(3) - counted.total(1) == 2 * sum(counted.per_portrait.values())
    totals = [found[variant].total() for variant in VARIANTS]
    assert totals == sorted(totals)
    assert found["dual path"].per_portrait["comparing the paths"] < 0.01 * totals[0], "the reference path saves nothing"

    # Layers in 16 bits save less for each portrait, but 16-bit copies of frozen 32-bit weights are saved for backward.
    layers = step_memory(full, "dual path", compute=torch.float16)
    assert 0.8 * unet / 2 < layers.fixed["16-bit copies of weights"] < unet / 2
    assert layers.per_portrait["activations"] < 0.75 * found["dual path"].per_portrait["activations"]
    both = step_memory(half, "dual path", compute=torch.float16)
    assert both.fixed["UNet"] == unet // 2 and both.fixed["16-bit copies of weights"] < 0.01 * unet
    assert both.fixed["adapter, gradient, AdamW"] == layers.fixed["adapter, gradient, AdamW"], "trained in 32 bits"


def test_parts_are_fixed_or_grow_with_the_batch() -> None:
    counted = StepMemory({"UNet": 100}, {"activations": 7, "enhancement": 2})
    assert counted.parts(3) == {"UNet": 100, "activations": 21, "enhancement": 6}
    assert (counted.total(), counted.total(3)) == (109, 127)
    with pytest.raises(ValueError, match="batch_size=0: at least one portrait"):
        counted.parts(0)


def test_what_cannot_be_counted_is_refused(shapes: Backbone, toy: Backbone) -> None:
    with pytest.raises(ValueError, match="variant='three models': expected one of plain LoRA, dual path"):
        step_memory(shapes, "three models")
    for pixels in (0, 20, 100):
        with pytest.raises(ValueError, match=f"pixels={pixels}: expected a multiple of 16"):
            step_memory(shapes, pixels=pixels)
    with pytest.raises(ValueError, match="a backbone on the meta device"):
        step_memory(toy, pixels=64)
