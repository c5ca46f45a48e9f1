"""Forward passes of a batch, shared out between processes and cut into parts.

Every process makes the whole batch from the step's own seed and takes its share. Means are taken over the whole batch,
so neither the number of processes nor the number of parts changes a loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from accelerate import Accelerator

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, collate
from spf_lite.data.draws import Draw, draw
from spf_lite.data.texts import empty_text
from spf_lite.method.dual_path import Step, applies, dual_path_step, naive_step
from spf_lite.method.purecc import Extractor
from spf_lite.models.backbone import Backbone
from spf_lite.models.precision import check_precision


class Passes:
    """One process's forward passes.

    Args:
        backbone: carries what is trained.
        config: the run.
        accelerator: of all processes.

    Raises:
        ValueError: if the batch cannot be shared out evenly, or weights of 16 bits are to compute in 32.
    """

    def __init__(self, backbone: Backbone, config: TrainConfig, accelerator: Accelerator) -> None:
        self.backbone, self.config, self.accelerator = backbone, config, accelerator
        self.device = backbone.device
        self._stage1 = config.of_stage1()
        self.empty = empty_text(backbone)
        self.parts = accelerator.num_processes * config.gradient_accumulation
        if config.batch_size % self.parts:
            raise ValueError(
                f"batch_size={config.batch_size} cannot be shared out evenly between {accelerator.num_processes} "
                f"processes with {config.gradient_accumulation} parts each"
            )
        check_precision(backbone.network.dtype, accelerator.mixed_precision)

    def share(self, whole: Draw) -> list[Draw]:
        """This process's parts of a batch."""
        first = self.accelerator.process_index * self.config.gradient_accumulation
        return [whole.part(first + k, self.parts) for k in range(self.config.gradient_accumulation)]

    def draw(self, step: int, custom: Sequence[Item], references: Sequence[Item], num_train_timesteps: int) -> Draw:
        """The whole batch of a step (:func:`spf_lite.data.draws.draw`), on every process the same."""
        return draw(self.config, step, custom, references, num_train_timesteps, self.empty)

    def config_of(self, in_stage2: bool) -> TrainConfig:
        """The run with the terms of one stage."""
        return self.config if in_stage2 else self._stage1

    def counts(self, whole: Draw, num_train_timesteps: int, in_stage2: bool = True) -> dict[str, int]:
        """How many items of the whole batch each term of a stage applies to; at least 1."""
        config, reconstruction = self.config_of(in_stage2), torch.tensor(whole.reconstruction)
        where = applies(config, whole.is_reference, reconstruction, whole.timesteps, num_train_timesteps)
        return {name: max(1, int(items.sum())) for name, items in where.items()}

    @contextmanager
    def run(self, part: Draw, in_stage2: bool, extractor: Extractor | None = None) -> Iterator[Step]:
        """The loss terms of one part. Call backward inside the block: both paths' recorded layers live that long."""
        batch = collate(part.items, part.reconstruction).to(self.device)
        noise, timesteps = part.noise.to(self.device), part.timesteps.to(self.device)
        with ExitStack() as stack:
            with self.accelerator.autocast():  # entering a dual-path step runs its forward passes
                if in_stage2 or self.config.anchor_share:
                    config = self.config_of(in_stage2)
                    both = dual_path_step(self.backbone, batch, noise, timesteps, config, extractor)
                    step = stack.enter_context(both)
                else:
                    step = naive_step(self.backbone, batch, noise, timesteps)
            yield step
