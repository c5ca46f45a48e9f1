"""Arithmetic of a run, counted on the meta device.

PyTorch's own counter (:class:`torch.utils.flop_counter.FlopCounterMode`) adds up products of matrices and convolutions;
everything else is left out. What a card makes of it in a second is in :mod:`spf_lite.profiling.cards`.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from spf_lite.config import TrainConfig
from spf_lite.models.backbone import Backbone
from spf_lite.profiling.like_cuda import LikeCuda
from spf_lite.profiling.memory import dual_pass, enhancement_pass, latent_side, plain_pass, unenhanced
from spf_lite.profiling.random_models import random_batch

#: Denoising steps of a reference portrait or a pure pair.
STEPS = 25


_ATEN = torch.ops.aten


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


#: The fused attention of :mod:`spf_lite.profiling.like_cuda`, which PyTorch's counter does not know.
_FUSED = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Arithmetic:
    """Operations of a run: multiplications and additions, each counted.

    Attributes:
        step: of one optimiser step, with its backward pass.
        steps: of the run.
        portrait: of one portrait that is painted, without its decoding.
        portraits: that are painted before stage 2, at most.
    """

    step: int
    steps: int
    portrait: int
    portraits: int

    @property
    def training(self) -> int:
        """All steps."""
        return self.step * self.steps

    @property
    def painting(self) -> int:
        """All portraits."""
        return self.portrait * self.portraits


def run_arithmetic(backbone: Backbone, config: TrainConfig, pixels: int) -> Arithmetic:
    """Count the operations of a run. What reads captions and measures maps before stage 2 is left out.

    Args:
        backbone: on the meta device with what the run trains
            (:func:`spf_lite.profiling.moments.run_on_meta`).
        config: of the run.
        pixels: height and width of the portraits.

    Raises:
        ValueError: for a size that the network cannot downsample.
    """
    side = latent_side(backbone, pixels)
    dual = config.stage2_steps > 0 or config.anchor_share > 0
    step = config.batch_size * step_operations(backbone, config if dual else None, side, config.gradient_checkpointing)
    # Where a phrase is rewritten, a pure pair takes the passes of about two portraits (spf_lite.pure_pairs.rewrite).
    passes = 2 if config.rewrite_limit else 1
    portraits = config.reference_portraits + passes * config.pure_pairs
    return Arithmetic(step, config.steps, STEPS * guided_operations(backbone, side), portraits)


def step_operations(backbone: Backbone, losses: TrainConfig | None, side: int, checkpointing: bool = False) -> int:
    """Operations of a training step with one portrait, forward and backward.

    Args:
        backbone: on the meta device with a trainable.
        losses: whose weights say what stage 2 computes; None: one path, with the denoising loss alone.
        side: height and width of the latents.
        checkpointing: whether activations are computed again.
    """
    runs: list[Callable[[Backbone, int, int], Tensor]] = [plain_pass]
    if losses is not None:
        runs = [partial(dual_pass, losses=unenhanced(losses))]
        runs += [enhancement_pass] if losses.weight_enhancement else []
    # Checkpointed, the response path computes its forward pass once more.
    operations = guided_operations(backbone, side) // 2 if checkpointing else 0
    for run in runs:
        operations += _operations(backbone, partial(_with_backward, run, backbone, side))
    return operations


def _with_backward(run: Callable[[Backbone, int, int], Tensor], backbone: Backbone, side: int) -> None:
    run(backbone, 1, side).sum().backward()


@torch.no_grad()
def guided_operations(backbone: Backbone, side: int) -> int:
    """Operations of one guided denoising step of one portrait: a pass with its text and one without."""
    batch = random_batch(backbone, 2, side=side, features=1)
    times = torch.zeros(2, dtype=torch.long, device=backbone.device)
    return _operations(backbone, lambda: backbone.predict(backbone.network, batch.latents, times, batch.complete))


def _operations(backbone: Backbone, run: Callable[[], object]) -> int:
    """On the meta device 16-bit weights take 16-bit numbers: autocast makes them."""
    dtype = backbone.network.dtype
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    with LikeCuda(None if dtype == torch.float32 else dtype), counter:
        run()
    return int(counter.get_total_flops())
