"""How a run begins: what the reference is, and what is trained beside it.

The reference is the base model, or the base model with attributes that were learned before. Those are protected like
everything else then: the abstract of SPF-Portrait (arXiv 2504.00396) calls it incremental learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spf_lite.config import TrainConfig
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.combined_file import parts_of
from spf_lite.models.adapters.continued import ContinuedLora
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.adapters.original import OriginalWeights
from spf_lite.models.adapters.stack import combined, merge, take_out
from spf_lite.models.adapters.trainable import check_fits, make_trainable
from spf_lite.models.backbone import Backbone
from spf_lite.models.digests import digest_of
from spf_lite.training.run.fingerprint import backbone_digest

AdapterPath = str | Path


@dataclass(frozen=True)
class Start:
    """What :func:`start` has put on the network.

    Attributes:
        trained: what is trained.
        reference: SHA-256 of the model's weights with the earlier attributes; empty if nobody asked for it.
        initial: SHA-256 of the factors that an existing LoRA gave; None: freshly initialised.
        earlier: names of the attributes that were learned before.
        original: the weights without them; None: nothing was learned before.
    """

    trained: Trainable
    reference: str
    initial: str | None
    earlier: tuple[str, ...] = ()
    original: OriginalWeights | None = None


def start(
    backbone: Backbone,
    config: TrainConfig,
    initial_adapter: AdapterPath | None = None,
    after: Sequence[AdapterPath] = (),
    continued: bool = False,
    digest: bool = True,
) -> Start:
    """Put what is trained on a backbone.

    Args:
        backbone: its network carries nothing yet.
        config: of the run.
        initial_adapter: a LoRA that training starts from; the reference is without it.
        after: LoRAs that were learned before, one on top of the other: the reference is the model with all of them.
        continued: train on with their factors, which hold all attributes in the end; otherwise with new ones on top of
            them, which hold the new attribute alone.
        digest: whether the run will need :attr:`Start.reference`.

    Raises:
        BackboneError: if an adapter does not fit the model or this way of training. The model is then as it was.
        ValueError: if the options exclude each other.
    """
    _check_options(config, initial_adapter, after, continued)
    backbone.architecture.trained_layers(config.layers)  # refuses layers that the class has not
    if config.contrast:
        backbone.architecture.check_contrast()
    network, kind, rank, seed, layers = backbone.network, config.trainable, config.rank, config.seed, config.layers
    read = [(path, read_lora(path, network)) for path in after]
    names = tuple(part.name for path, own in read for part in parts_of(path, own))
    factors = combined([(own, 1.0) for _, own in read])
    if continued:
        check_fits(factors, network, rank, layers, f"cannot continue {', '.join(map(str, after))}")
    before = merge(network, factors)
    try:
        model = backbone_digest(backbone, config.weight_enhancement > 0) if digest else ""
        trained: Trainable
        if continued:
            trained = ContinuedLora(network, rank, seed, layers, factors, before)
        else:
            trained = make_trainable(kind, network, rank, seed, config.steps, initial_adapter, layers)
    except BaseException:
        take_out(network, before)
        raise
    given = continued or initial_adapter is not None
    original = OriginalWeights(network, before) if before else None
    return Start(trained, model, digest_of(trained.state().items()) if given else None, names, original)


def _check_options(
    config: TrainConfig, initial_adapter: AdapterPath | None, after: Sequence[AdapterPath], continued: bool
) -> None:
    if initial_adapter is not None and after:
        raise ValueError("give initial_adapter, which the reference is without, or after, which it is with")
    if not continued:
        return
    if not after:
        raise ValueError("continued needs the adapters that training goes on with: name them in after")
    if config.trainable != "lora" or config.contrast:
        raise ValueError(
            f"continued goes on with the factors of a LoRA, with trainable={config.trainable}, "
            f"contrast={config.contrast:g}: set trainable=lora, contrast=0, or learn on top of the earlier adapters"
        )
