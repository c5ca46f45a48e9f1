"""The trainer: stage 1 (ordinary fine-tuning), stage 2 (dual path), from the first step to the exported adapter.

A step does not depend on the number of processes, on the parts that each cuts its share into, or on earlier random
numbers: each step has its own seed. So a run on two processes has the losses of a run on one, and a resumed run those
of an uninterrupted one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.encoding import custom_items
from spf_lite.data.latent_cache import LatentCache
from spf_lite.data.sets.custom_set import CustomSet, CustomSetError
from spf_lite.method.control_map import ControlMap
from spf_lite.models.backbone import Backbone, best_device
from spf_lite.models.running.resting import Resting, unneeded
from spf_lite.models.running.sharding import shard_frozen
from spf_lite.training.loss_meter import check_finite
from spf_lite.training.optimisation import Optimisation
from spf_lite.training.passes import Passes
from spf_lite.training.run.checkpoint import RunFolder, RunFolderError
from spf_lite.training.run.export import write_adapter
from spf_lite.training.run.identity import RunIdentity
from spf_lite.training.run.interrupts import interrupt_afterwards
from spf_lite.training.schedule import accelerator_for
from spf_lite.training.stage2 import (
    Stage2,
    checked_reference_texts,
    earlier_targets,
    in_text_forms,
    prepared,
    restored,
)
from spf_lite.training.start import start
from spf_lite.training.step import OnStep, TrainResult, training_step

logger = logging.getLogger(__name__)


class DualPathTrainer:
    """Fine-tune a backbone on a custom set.

    Args:
        backbone: gets what is trained; with that switched off it is the reference.
        custom_set: the portraits that show the target.
        config: the run.
        output_dir: for checkpoints and the log; None keeps everything in memory.
        reference_texts: base texts (or pairs of base text and the phrase that the target replaces) for which the
            reference path samples its portraits; default: the set's own references, or else its base texts.
        accelerator: of processes, device and precision; default: one that fits backbone and configuration.
        initial_adapter: a LoRA to start from, which the reference is without; default: low-rank factors that change
            nothing yet.
        after: LoRAs that were learned before: the reference is the model *with* them (:mod:`spf_lite.training.start`).
        continued: train on with the factors of ``after``, instead of with new ones on top of them.
        latent_cache: folder that keeps the encoded portraits for other runs (:mod:`spf_lite.data.latent_cache`).
        shard: spread the frozen weights over the processes (:mod:`spf_lite.models.running.sharding`). The backbone is
            loaded into main memory; it moves to this process's device.

    Raises:
        PromptError: if a text of the set or a reference text does not fit the model.
        CustomSetError: if the configuration asks for masks and the set has none.
        BackboneError: if an adapter does not fit.
        ValueError: if the batch cannot be shared out between the processes and their parts, the model has weights of 16
            bits and the configuration computes in 32, or the model cannot be sharded.
        OSError: if the output folder cannot be written or has no room, before any training.
    """

    def __init__(
        self,
        backbone: Backbone,
        custom_set: CustomSet,
        config: TrainConfig,
        output_dir: str | Path | None = None,
        reference_texts: Sequence[tuple[str, str | None]] | None = None,
        accelerator: Accelerator | None = None,
        initial_adapter: str | Path | None = None,
        after: Sequence[str | Path] = (),
        continued: bool = False,
        latent_cache: str | Path | None = None,
        shard: bool = False,
    ) -> None:
        self.backbone, self.config, self.custom_set = backbone, config, custom_set
        network = backbone.network
        self.accelerator = accelerator or accelerator_for(config, best_device() if shard else backbone.device)
        self.passes = Passes(backbone, config, self.accelerator)
        if config.map_source == "given" and any(example.mask is None for example in custom_set):
            raise CustomSetError(f"{custom_set.folder}: map_source='given' needs a mask_file in every line")
        self.reference_texts = checked_reference_texts(backbone, custom_set, reference_texts)
        self.earlier_targets = earlier_targets(custom_set, after, config)
        self.num_train_timesteps = int(backbone.pipe.scheduler.config.num_train_timesteps)
        cache = None if latent_cache is None else LatentCache(latent_cache, backbone.pipe)
        custom = custom_items(backbone, custom_set, config.weight_enhancement > 0, cache)
        self.stage2 = Stage2(in_text_forms(backbone, custom, config))
        begun = start(backbone, config, initial_adapter, after, continued, digest=output_dir is not None)
        self.trained = backbone.trainable = begun.trained
        backbone.original = begun.original if self.earlier_targets.need_original else None
        self.parameters, self.earlier, self.continued = self.trained.parameters, begun.earlier, continued
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing()
            network.train()  # without dropout that changes nothing else
        if shard:
            shard_frozen(backbone, self.accelerator.device)
        self.optimisation = Optimisation(self.trained, config, self.accelerator)
        self.resting = Resting(unneeded(backbone, config.weight_enhancement > 0), backbone.device)
        self.folder = None
        if output_dir is not None:
            known = (begun.reference, begun.initial, network.dtype)
            asked = self.earlier_targets.added_to(backbone, self.reference_texts)
            identity = RunIdentity.of(config, custom_set, asked, *known)
            # Weights, both of Adam's moments, and for PureCC the extractor: four times the parameters at most.
            room = 4 * sum(parameter.numel() * parameter.element_size() for parameter in self.parameters)
            self.folder = RunFolder(output_dir, identity, room, writes=self.accelerator.is_main_process)
        self.step, self.cpu_seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self._began, self._saved = False, -1

    @property
    def custom(self) -> list[Item]:
        """The portraits of the custom set, encoded; in stage 2 with their averaged maps."""
        return self.stage2.custom

    @property
    def scales(self) -> dict[str, float]:
        """The factor that brings each loss term of stage 2 to the size of the denoising term."""
        return self.stage2.scales

    def fit(
        self,
        resume: bool = False,
        on_step: OnStep | None = None,
        progress: bool = True,
        *,
        overwrite: bool = False,
        extend: bool = False,
    ) -> TrainResult:
        """Train to the end. A trainer that is at the end returns its result; one that was interrupted goes on.

        A keyboard interrupt saves a checkpoint before it ends training. Text encoders, autoencoder and CLIP are in main
        memory during the steps that do not need them, unless there is a function ``on_step``, which may sample.

        Args:
            resume: continue from the checkpoint in the output folder, if there is one: the same losses, to the last
                digit, as without the interruption.
            on_step: called after every step with its number and control map.
            progress: show a bar.
            overwrite: take the place of the run that the output folder holds. Its files stay until this run's first
                checkpoint is whole.
            extend: continue from the checkpoint of a run that differs in nothing but fewer steps.

        Raises:
            RunFolderError: if the output folder holds a run and neither option is given, if that run is another one, or
                if another process trains there. Nothing was changed on the disk.
            TrainingDivergedError: if a loss or the gradient is not finite.
            OSError: if a checkpoint or the log cannot be written.
        """
        if self.optimisation.updating:
            raise RunFolderError("this trainer was interrupted within an update: make a new one and resume")
        with self._folder_in_use(resume, overwrite, extend):
            if self.step == self.config.steps:
                logger.info("all %d steps are made: there is nothing left to do", self.step)
            try:
                with self.resting.away() if on_step is None else nullcontext():
                    self._train(on_step, hidden=not progress or not self.accelerator.is_main_process)
            except KeyboardInterrupt:
                if not self.optimisation.updating:
                    self._save()
                raise
        return TrainResult(self.history, self.cpu_seconds)

    def export(self, folder: str | Path) -> Path:
        """Write the adapter as an ordinary LoRA, with configuration and model card beside it.

        ``load_lora_weights(folder)`` of diffusers' pipelines loads it; where it differs, the model card says how.

        Raises:
            TrainingDivergedError: if what was trained is not finite.
            OSError: if the folder cannot be written; an adapter that was there is as it was.
        """
        if self.accelerator.is_main_process:
            layers, backbone = self.trained.lora_layers(), self.backbone
            written = (backbone.spec.source, self.earlier, self.continued, backbone.architecture)
            write_adapter(folder, layers, self.config, self.custom_set, *written)
        self.accelerator.wait_for_everyone()
        return Path(folder)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, as tensors and plain values. The random state is seed and step."""
        return {
            "trained": self.trained.state(),
            **self.optimisation.state_dict(),
            **self.stage2.state_dict(self.config),
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a trainer that has not begun to where :meth:`state_dict` was taken."""
        self.trained.restore(state["trained"])
        self.optimisation.load_state_dict(state)
        self.stage2 = restored(state, self.passes, self.trained, self.custom, self.earlier_targets)
        self.step, self._saved, self.cpu_seconds = state["step"], state["step"], state["cpu_seconds"]

    @contextmanager
    def _folder_in_use(self, resume: bool, overwrite: bool, extend: bool) -> Iterator[None]:
        """Hold the output folder, and take up its checkpoint if the run goes on."""
        if self.folder is None:
            yield
            return
        if self._began:  # this trainer goes on as it began
            resume, overwrite = not self.folder.replaces_old_run, self.folder.replaces_old_run
        self.folder.check(resume, overwrite, extend)
        with self.folder.in_use():
            self.folder.check(resume, overwrite, extend)  # once more: a run may have ended here meanwhile
            self.accelerator.wait_for_everyone()
            self.folder.begin(overwrite)
            found = self.folder.load() if (resume or extend) and not self._began else None
            if found is not None:
                state, self.history = found
                self.load_state_dict(state)
            self._began = True
            self.accelerator.wait_for_everyone()
            yield

    def _train(self, on_step: OnStep | None, hidden: bool) -> None:
        began = time.process_time() - self.cpu_seconds
        with tqdm(total=self.config.steps, initial=self.step, disable=hidden, desc="fine-tune", mininterval=1) as bar:
            while self.step < self.config.steps:
                if self.step >= self.config.stage1_steps and not self.scales:
                    self._begin_stage_two()
                with interrupt_afterwards():
                    line, terms, control = self._one_step()
                    self.cpu_seconds = time.process_time() - began
                    self.history.append(line)
                    self.step += 1
                    self.optimisation.done()
                if self.folder:
                    self.folder.log(line)
                bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
                bar.update()
                if on_step:
                    on_step(self.step - 1, control)
                if self.step % self.config.checkpoint_every == 0:
                    self._save()
        self._save()

    def _save(self) -> None:
        """Write a checkpoint, unless there is one of this step. A run without a step takes no other's place.

        Raises:
            TrainingDivergedError: if what was trained is not finite: the last good checkpoint is kept.
        """
        check_finite(self.trained.state(), f"before step {self.step}")
        if self.folder and self._saved != self.step and (self.step or not self.folder.replaces_old_run):
            self.folder.save(self.state_dict(), self.history)
        self._saved = self.step

    def _begin_stage_two(self) -> None:
        """Save what stage 1 has trained before, and afterwards what took long to prepare."""
        self._save()
        known = (self.reference_texts, self.earlier_targets, self.num_train_timesteps)
        self.stage2 = prepared(self.passes, self.trained, self.custom, *known, self.resting)
        self._saved = -1
        self._save()

    def _one_step(self) -> tuple[dict[str, Any], dict[str, float], ControlMap | None]:
        return training_step(self.step, self.passes, self.stage2, self.optimisation, self.num_train_timesteps)
