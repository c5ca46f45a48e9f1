"""Memory of a whole run at its large moments: encoding, painting, a training step, and the use of the adapter.

A run fits a card if its largest moment does. Training steps have parts of the model away from the card
(:mod:`spf_lite.models.running.resting`), and painting needs no gradients. So any of the moments can be the largest.

Everything is counted on the "meta" device, as :mod:`spf_lite.profiling.memory` does it. Text encoders and CLIP work on
few numbers: their weights are counted, and what they compute is not. On a processor, measured peaks of a step, of
painting and of encoding lay within 5 % of the count. Decoding took 19 % more: its convolutions lay out anew what they
read, and no count sees that (``tests/profiling/peak_driver.py``).

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.encoding import CHUNK, SAMPLED
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone
from spf_lite.models.precision import check_precision
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.sampling import SMALL
from spf_lite.profiling.like_cuda import LikeCuda
from spf_lite.profiling.live import LivePeak
from spf_lite.profiling.memory import latent_side, losses_memory, model_bytes
from spf_lite.profiling.random_models import random_batch
from spf_lite.profiling.saved import storage_key
from spf_lite.profiling.shapes import meta_shape

#: Moments without gradients.
ENCODING, PAINTING, USING = "encode the set", "paint for stage 2", "use the adapter"
#: Types of ``mixed_precision``; None: no autocast.
COMPUTE = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}
#: Causes that a training step keeps in main memory; with enhancement, CLIP stays.
AWAY = ("text encoder, autoencoder", "CLIP")


@dataclass(frozen=True)
class Moment:
    """What a run needs at one moment.

    Attributes:
        name: of the moment.
        together: portraits that pass through the model at a time.
        parts: bytes by cause.
    """

    name: str
    together: int
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all causes."""
        return sum(self.parts.values())


def run_on_meta(
    shape: str, tokenizer_of: Backbone, config: TrainConfig, dtype: torch.dtype = torch.float16
) -> Backbone:
    """A published model's shape on the meta device, with what a configuration trains.

    Args:
        shape: one of :data:`spf_lite.profiling.shapes.SHAPES`.
        tokenizer_of: a backbone whose tokenizer is used; any will do.
        config: of the run.
        dtype: of the frozen weights.

    Raises:
        ValueError: for another shape, or weights of 16 bits without mixed precision.
        BackboneError: if the shape has no such layers, or what is trained cannot have this type.
    """
    check_precision(dtype, config.mixed_precision)
    backbone = meta_shape(shape, tokenizer_of, dtype)
    backbone.trainable = make_trainable(
        config.trainable, backbone.network, config.rank, config.seed, config.steps, layers=config.layers
    )
    return backbone


def run_moments(backbone: Backbone, config: TrainConfig, pixels: int) -> list[Moment]:
    """The large moments of a run, in their order.

    Args:
        backbone: on the meta device with what the run trains, as :func:`run_on_meta` makes it.
        config: of the run. A part of a batch has ``batch_size / gradient_accumulation`` portraits.
        pixels: height and width of the portraits.

    Raises:
        ValueError: for a size that the network cannot downsample.
    """
    compute = COMPUTE[config.mixed_precision]
    models = model_bytes(backbone, preview=config.weight_enhancement > 0)
    # Before and after training there are no gradients, and nothing of the optimiser.
    frozen = dict(models) | {"adapter": models["adapter, gradient, AdamW"] // 4}
    del frozen["adapter, gradient, AdamW"]
    held = {ENCODING: frozen, PAINTING: models, USING: frozen}
    around = {
        name: Moment(name, each.together, held[name] | {"intermediate results": each.peak})
        for name, each in passes(backbone, pixels).items()
    }
    if not (config.reference_portraits or config.pure_pairs):
        del around[PAINTING]
    last = around.pop(USING)
    return [*around.values(), _training(backbone, config, pixels, compute), last]


def _training(backbone: Backbone, config: TrainConfig, pixels: int, compute: torch.dtype | None) -> Moment:
    compares = config.stage2_steps > 0 or config.anchor_share > 0
    together = max(1, config.batch_size // config.gradient_accumulation)
    step = losses_memory(backbone, config if compares else None, pixels, compute, config.gradient_checkpointing)
    away = AWAY if not config.weight_enhancement else AWAY[:1]
    parts = {cause: size for cause, size in step.parts(together).items() if cause not in away}
    return Moment("training step", together, parts)


@dataclass(frozen=True)
class Pass:
    """Passes without gradients at one moment.

    Attributes:
        together: portraits that pass through the model at a time.
        peak: bytes of intermediate results, weights left out.
    """

    together: int
    peak: int


def passes(backbone: Backbone, pixels: int) -> dict[str, Pass]:
    """The passes around the training steps, by the name of their moment, in their order.

    Args:
        backbone: on the meta device with a trainable.
        pixels: height and width of the portraits.

    Raises:
        ValueError: for a size that the network cannot downsample.
    """
    side = latent_side(backbone, pixels)
    kinds: dict[str, tuple[int, Callable[[Backbone, int, int], int]]] = {
        ENCODING: (CHUNK, encoding_bytes),
        PAINTING: (SAMPLED, painting_bytes),
        USING: (SMALL, using_bytes),
    }
    together = {name: at_a_time((side, side), most) for name, (most, _) in kinds.items()}
    return {name: Pass(together[name], count(backbone, together[name], side)) for name, (_, count) in kinds.items()}


def painting_bytes(backbone: Backbone, portraits: int, side: int) -> int:
    """Peak of one guided denoising step, in bytes, weights left out.

    Args:
        backbone: on the meta device.
        portraits: that are painted at a time; each passes twice, with its text and without.
        side: height and width of the latents.
    """
    batch = random_batch(backbone, 2 * portraits, side=side, features=1)
    times = torch.zeros(2 * portraits, dtype=torch.long, device=backbone.device)
    return _peak(backbone, lambda: backbone.predict(backbone.network, batch.latents, times, batch.complete))


def encoding_bytes(backbone: Backbone, portraits: int, side: int) -> int:
    """Peak of the autoencoder while it encodes portraits, in bytes; arguments as in :func:`painting_bytes`."""
    pipe = backbone.pipe
    pixels = side * pipe.vae_scale_factor
    images = torch.empty(portraits, 3, pixels, pixels, device=pipe.vae.device, dtype=pipe.vae.dtype)
    return _peak(backbone, lambda: pipe.vae.encode(images).latent_dist.mean)


def decoding_bytes(backbone: Backbone, portraits: int, side: int) -> int:
    """Peak of the autoencoder while it decodes portraits, in bytes; arguments as in :func:`painting_bytes`."""
    vae = backbone.pipe.vae
    shape = (portraits, vae.config.latent_channels, side, side)
    latents = torch.empty(shape, device=vae.device, dtype=vae.dtype)
    return _peak(backbone, lambda: vae.decode(latents).sample)


def using_bytes(backbone: Backbone, portraits: int, side: int) -> int:
    """Peak while portraits are painted and decoded, in bytes; arguments as in :func:`painting_bytes`."""
    return max(count(backbone, portraits, side) for count in (painting_bytes, decoding_bytes))


@torch.no_grad()
def _peak(backbone: Backbone, run: Callable[[], Tensor]) -> int:
    modules = backbone.architecture.modules(backbone.pipe).values()
    weights = {storage_key(one) for module in modules for one in (*module.parameters(), *module.buffers())}
    dtype = backbone.network.dtype
    with LikeCuda(None if dtype == torch.float32 else dtype), LivePeak(weights) as live:
        run()
    return int(live.peak)
