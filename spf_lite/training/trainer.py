"""The trainer: stage 1 (ordinary fine-tuning), stage 2 (dual path), from the first step to the exported adapter.

Two stages, because the control map is made of the difference between both paths: before the model has learned anything
of the target that difference is empty, the map is black, and alignment forbids all learning (over-alignment).

A step does not depend on the number of processes, on the parts that each cuts its share into, or on what was drawn
before. Every process draws the whole batch from the step's own seed and takes its share; means are taken over the whole
batch. So a run on two processes has the losses of a run on one, and a resumed run those of an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from spf_lite.config import WEIGHTS, TrainConfig
from spf_lite.data.batch import Item, collate
from spf_lite.data.custom_set import CustomSet, CustomSetError
from spf_lite.data.draws import Draw, draw
from spf_lite.data.encoding import check_texts, custom_items, reference_items, reference_latents
from spf_lite.method.control_map import ControlMap, with_averaged_maps
from spf_lite.method.dual_path import Step, applies, dual_path_step, naive_step
from spf_lite.method.losses import objective
from spf_lite.method.purecc import Extractor
from spf_lite.models.backbone import Backbone
from spf_lite.models.trainable import make_trainable
from spf_lite.training.checkpoint import RunFolder
from spf_lite.training.export import write_adapter
from spf_lite.training.loss_meter import LossMeter, TrainingDivergedError
from spf_lite.training.scales import term_scales
from spf_lite.training.schedule import accelerator_for, learning_rates

#: How many batches the sizes of the loss terms are measured on when stage 2 begins.
SCALE_BATCHES = 10


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        history: one dictionary per step, the lines of the log.
        cpu_seconds: processor time of this process, over all sessions of a resumed run. Wall-clock time would mostly
            say what else the machine was doing.
    """

    history: list[dict[str, Any]]
    cpu_seconds: float


OnStep = Callable[[int, ControlMap | None], None]


class DualPathTrainer:
    """Fine-tune a backbone on a custom set.

    Args:
        backbone: gets what is trained; with that taken back it is the reference.
        custom_set: the portraits that show the target.
        config: the run.
        output_dir: for checkpoints and the log; None keeps everything in memory.
        reference_texts: base texts (or pairs of base text and the phrase that the target replaces) for which the
            reference draws its portraits; default: the set's own references, or else its base texts.
        accelerator: of processes, device and precision; default: one that fits backbone and configuration.

    Raises:
        PromptError: if a text of the set does not fit the model.
        CustomSetError: if the configuration asks for masks and the set has none.
        ValueError: if the batch cannot be shared out between the processes and their parts, or the model has weights of
            16 bits and the configuration computes in 32.
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
    ) -> None:
        self.backbone, self.config, self.custom_set = backbone, config, custom_set
        self.device = torch.device(backbone.pipe.device)
        self.accelerator = accelerator or accelerator_for(config, self.device)
        self.parts = self.accelerator.num_processes * config.gradient_accumulation
        if config.batch_size % self.parts:
            raise ValueError(
                f"batch_size={config.batch_size} cannot be shared out evenly between {self.accelerator.num_processes} "
                f"processes with {config.gradient_accumulation} parts each"
            )
        if backbone.pipe.unet.dtype != torch.float32 and self.accelerator.mixed_precision == "no":
            raise ValueError(f"weights of {backbone.pipe.unet.dtype} want mixed_precision=fp16 or bf16, and it is 'no'")
        if config.map_source == "given" and any(example.mask is None for example in custom_set):
            raise CustomSetError(f"{custom_set.folder}: map_source='given' needs a mask_file in every line")
        own = custom_set.references or [(e.base_text, e.replaces) for e in custom_set]
        self.reference_texts = list(reference_texts or own)
        self.num_train_timesteps = int(backbone.pipe.scheduler.config.num_train_timesteps)
        check_texts(backbone, self.reference_texts, custom_set[0].target_text)
        self.custom = custom_items(backbone, custom_set, enhance=config.weight_enhancement > 0)
        self.references: list[Item] = []
        self.trained = make_trainable(config.trainable, backbone.pipe.unet, config.rank, config.seed, config.steps)
        backbone.trainable, self.parameters = self.trained, self.trained.parameters
        if config.gradient_checkpointing:
            backbone.pipe.unet.enable_gradient_checkpointing()
            backbone.pipe.unet.train()  # without dropout that changes nothing else
        adam = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=0.0)
        self.scheduler = learning_rates(adam, config)
        self.optimizer = self.accelerator.prepare_optimizer(adam)
        # Weights, both of Adam's moments, and for PureCC the extractor: four times the parameters at most.
        room = 4 * sum(parameter.numel() * parameter.element_size() for parameter in self.parameters)
        main = self.accelerator.is_main_process
        self.folder = None if output_dir is None else RunFolder(output_dir, config, room, writes=main)
        self.scales: dict[str, float] = {}
        self.extractor: Extractor | None = None
        self.step, self.cpu_seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []

    def fit(self, resume: bool = False, on_step: OnStep | None = None, progress: bool = True) -> TrainResult:
        """Train to the end.

        Args:
            resume: continue from the checkpoint in the output folder, if there is one: the same losses, to the last
                digit, as without the interruption. Without it, the folder's former run is overwritten.
            on_step: called after every step with its number and control map.
            progress: show a bar.

        Raises:
            TrainingDivergedError: if a loss or the gradient is not finite.
        """
        self._begin(resume)
        began = time.process_time() - self.cpu_seconds
        hidden = not progress or not self.accelerator.is_main_process
        with tqdm(total=self.config.steps, initial=self.step, disable=hidden, desc="fine-tune", mininterval=1) as bar:
            while self.step < self.config.steps:
                if self.step >= self.config.stage1_steps and not self.scales:
                    self._begin_stage_two()
                line, terms, control = self._one_step()
                self.history.append(line)
                if self.folder:
                    self.folder.log(line)
                bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
                bar.update()
                self.cpu_seconds = time.process_time() - began
                if on_step:
                    on_step(self.step, control)
                self.step += 1
                if self.folder and (self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps):
                    self.folder.save(self.state_dict())
        return TrainResult(self.history, self.cpu_seconds)

    def export(self, folder: str | Path) -> Path:
        """Write the adapter as an ordinary diffusers LoRA, with configuration and model card beside it.

        ``StableDiffusionPipeline.load_lora_weights(folder)`` loads it in any tool.
        """
        if self.accelerator.is_main_process:
            write_adapter(folder, self.trained.lora_layers(), self.config, self.custom_set, self.backbone.spec.source)
        self.accelerator.wait_for_everyone()
        return Path(folder)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors and plain values, so that ``torch.load`` runs no code.

        The random state is the seed and the step.
        """
        scaler = self.accelerator.scaler
        averaged = self.config.map_source == "averaged" and self.scales
        return {
            "trained": self.trained.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "scales": self.scales,
            "extractor": self.extractor.state if self.extractor else None,
            "references": [item.latents for item in self.references],
            "regions": [item.region for item in (*self.custom, *self.references)] if averaged else [],
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a trainer that has not begun to where :meth:`state_dict` was taken."""
        self.trained.restore(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.scales, self.step, self.cpu_seconds = state["scales"], state["step"], state["cpu_seconds"]
        if state["extractor"]:
            self.freeze_extractor(state["extractor"])
        if state["references"]:
            latents = state["references"]
            self.references = reference_items(self.backbone, self.reference_texts, latents, self.custom[0])
        if state["regions"]:
            everyone = zip((*self.custom, *self.references), state["regions"], strict=True)
            mapped = [replace(item, region=region) for item, region in everyone]
            self.custom, self.references = mapped[: len(self.custom)], mapped[len(self.custom) :]

    # -- one step ------------------------------------------------------------------------------------------------------

    def _one_step(self) -> tuple[dict[str, Any], dict[str, float], ControlMap | None]:
        """One step of the optimiser; returns its line of the log, the terms' means, and the last control map."""
        whole = draw(self.config, self.step, self.custom, self.references, self.num_train_timesteps)
        in_stage2 = self.step >= self.config.stage1_steps
        counts = self._counts(whole) if in_stage2 else {"denoise": self.config.batch_size}
        tally = LossMeter(list(counts), self.num_train_timesteps)
        control = None
        self.optimizer.zero_grad(set_to_none=True)
        for piece in self._pieces(whole):
            with self._run(piece, in_stage2) as step:
                tally.add(self.step, step.terms, piece.timesteps)
                factors = {name: self._factor(name) for name in step.terms}
                loss = objective(step.terms, factors, counts)
                penalty = self.trained.penalty()
                self.accelerator.backward(loss if penalty is None else loss + penalty / self.parts)
            control = step.control
        tally.reduce(self.accelerator)
        means = tally.means()
        line = {
            "step": self.step,
            "stage": 2 if in_stage2 else 1,
            "timesteps": whole.timesteps.tolist(),
            "learning_rate": self.scheduler.get_last_lr()[0],
            **means,
            "loss": sum(self._factor(name) * value for name, value in means.items()),
            "by_timestep": tally.by_timestep(),
        }
        self._update(whole.timesteps.tolist())
        return line, means, control

    def _factor(self, name: str) -> float:
        """What a term counts in the sum: in stage 1 there is one, later its weight and its scale."""
        return self.config.weight(name) * self.scales[name] if self.step >= self.config.stage1_steps else 1.0

    def _update(self, timesteps: list[int]) -> None:
        """Sum the gradients of all processes, clip, move."""
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if self.accelerator.scaler is None and not torch.isfinite(norm):  # a scaler skips such steps by itself
            raise TrainingDivergedError(f"step {self.step}: the gradient is {norm.item()} at t = {timesteps}")
        self.optimizer.step()
        self.scheduler.step()
        # A scaler that found an infinite gradient has skipped the step: nothing may be learned from it.
        if not self.optimizer.step_was_skipped:
            self.trained.after_backward(self.step)

    def _pieces(self, whole: Draw) -> list[Draw]:
        """This process's share, part by part."""
        first = self.accelerator.process_index * self.config.gradient_accumulation
        return [whole.part(first + k, self.parts) for k in range(self.config.gradient_accumulation)]

    def _counts(self, whole: Draw) -> dict[str, int]:
        """How many items of the whole batch each term is about; at least 1."""
        again = torch.tensor(whole.reconstruction)
        where = applies(self.config, whole.is_reference, again, whole.timesteps, self.num_train_timesteps)
        return {name: max(1, int(items.sum())) for name, items in where.items()}

    @contextmanager
    def _run(self, piece: Draw, in_stage2: bool) -> Iterator[Step]:
        batch = collate(piece.items, piece.reconstruction).to(self.device)
        noise, timesteps = piece.noise.to(self.device), piece.timesteps.to(self.device)
        with ExitStack() as stack:
            with self.accelerator.autocast():  # for the way forward, which a dual-path step goes when it is entered
                if in_stage2:
                    both = dual_path_step(self.backbone, batch, noise, timesteps, self.config, self.extractor)
                    step = stack.enter_context(both)
                else:
                    step = naive_step(self.backbone, batch, noise, timesteps)
            yield step

    # -- between the stages --------------------------------------------------------------------------------------------

    def _begin_stage_two(self) -> None:
        """Draw the reference's portraits, make the averaged maps, bring the loss terms to one size."""
        config = self.config
        if config.reference_portraits:
            count, seed = config.reference_portraits, config.seed
            latents = reference_latents(self.backbone, self.reference_texts, count, seed, self.custom)
            self.references = reference_items(self.backbone, self.reference_texts, latents, self.custom[0])
        if config.map_source == "averaged":
            with self.accelerator.autocast():
                self.custom = with_averaged_maps(self.backbone, self.custom, config)
                self.references = with_averaged_maps(self.backbone, self.references, config)
        if config.weight_purecc:
            self.freeze_extractor({name: value.detach().clone() for name, value in self.trained.state().items()})
        if not config.scale_terms:
            self.scales = {name: 1.0 for name in WEIGHTS if config.weight(name)}
            return
        ahead = (
            draw(config, step, self.custom, self.references, self.num_train_timesteps)
            for step in range(self.step, self.step + SCALE_BATCHES)
        )
        pieces = (piece for whole in ahead for piece in self._pieces(whole))
        self.scales = term_scales(
            config, pieces, lambda p: self._run(p, in_stage2=True), self.num_train_timesteps, self.accelerator
        )

    def freeze_extractor(self, state: dict[str, Tensor]) -> None:
        """Let PureCC's extractor be the model as ``state`` has it."""
        target_text = self.custom_set[0].target_text
        self.extractor = Extractor(self.backbone, self.trained, state, target_text)

    def _begin(self, resume: bool) -> None:
        """Take up the checkpoint, or start anew."""
        found = self.folder.load() if self.folder and resume else None
        if found is not None:
            state, self.history = found
            self.load_state_dict(state)
        elif self.folder:
            self.folder.clear()
        self.accelerator.wait_for_everyone()
