"""The trainer: stage 1 (ordinary fine-tuning), stage 2 (dual path), checkpoints, log, export.

Two stages, because the control map is made of the difference between both paths: before the model has learned anything
of the target that difference is empty, the map is black, and alignment forbids all learning (over-alignment).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from torch import Tensor
from tqdm.auto import tqdm

from spf_lite.config import WEIGHTS, TrainConfig
from spf_lite.control_map import ControlMap
from spf_lite.data import CustomSet
from spf_lite.dual_path import Batch, Item, Step, collate, dual_path_step, naive_step
from spf_lite.pipelines import Backbone, encode_images, encode_text, sample, to_tensor
from spf_lite.prompts import encode_pair
from spf_lite.trainable import make_trainable

__all__ = ["DualPathTrainer", "TrainConfig", "TrainResult", "TrainingDivergedError"]

logger = logging.getLogger(__name__)

#: How many steps of stage 2 the size of a loss term is measured over.
SIZING = 10


class TrainingDivergedError(FloatingPointError):
    """A loss term is not finite; the message names step, term and timesteps. The last good checkpoint is kept."""


@dataclass(frozen=True)
class TrainResult:
    """History (one dictionary per step) and duration of a run."""

    history: list[dict[str, Any]]
    seconds: float


OnStep = Callable[[int, ControlMap | None], None]


class DualPathTrainer:
    """Fine-tune a backbone on a custom set.

    Args:
        backbone: gets a LoRA adapter; with the adapter off it is the reference.
        custom_set: the portraits that show the target.
        config: the run.
        output_dir: for checkpoints and the log; None keeps everything in memory.
        reference_texts: base texts (or pairs of base text and the phrase that the target replaces) for which the
            reference draws its portraits; default: the set's own references, or else its base texts.

    Raises:
        PromptError: if a text of the set does not fit the model.
        OSError: if the output folder cannot be written, before any training.
    """

    def __init__(
        self,
        backbone: Backbone,
        custom_set: CustomSet,
        config: TrainConfig,
        output_dir: str | Path | None = None,
        reference_texts: Sequence[tuple[str, str | None]] | None = None,
    ) -> None:
        self.backbone, self.config, self.custom_set = backbone, config, custom_set
        self.output_dir = None if output_dir is None else Path(output_dir)
        if self.output_dir:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            (self.output_dir / "config.json").write_text(config.to_json())
        self.target_text = custom_set[0].target_text
        own = custom_set.references or [(e.base_text, e.replaces) for e in custom_set]
        self.reference_texts = list(reference_texts or own)
        self.custom = self._custom_items()
        self.references: list[Item] = []
        steps = config.stage1_steps + config.stage2_steps
        self.trained = make_trainable(config.trainable, backbone.pipe.unet, config.rank, config.seed, steps)
        backbone.trainable, self.parameters = self.trained, self.trained.parameters
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=0.0)
        self.sizes: dict[str, list[float]] = {}
        self.extractor: dict[str, Tensor] | None = None
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []

    def fit(self, resume: bool = False, on_step: OnStep | None = None, progress: bool = True) -> TrainResult:
        """Train to the end.

        Args:
            resume: continue from the checkpoint in the output folder, if there is one: the same losses, to the last
                digit, as without the interruption.
            on_step: called after every step with its number and control map.
            progress: show a bar.

        Raises:
            TrainingDivergedError: if a loss is not finite.
        """
        if resume:
            self._resume()
        total = self.config.stage1_steps + self.config.stage2_steps
        began = time.monotonic() - self.seconds
        with tqdm(total=total, initial=self.step, disable=not progress, desc="fine-tune", mininterval=1) as bar:
            while self.step < total:
                terms, control, timesteps = self._one_step()
                self._log(terms, timesteps, bar)
                self.seconds = time.monotonic() - began
                if on_step:
                    on_step(self.step, control)
                self.step += 1
                if self.output_dir and (self.step % self.config.checkpoint_every == 0 or self.step == total):
                    self._checkpoint()
        return TrainResult(self.history, self.seconds)

    def export(self, folder: str | Path) -> Path:
        """Write the adapter as an ordinary diffusers LoRA, with the configuration beside it.

        ``StableDiffusionPipeline.load_lora_weights(folder)`` loads it in any tool.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        layers = convert_state_dict_to_diffusers(self.trained.lora_layers())
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
        (folder / "config.json").write_text(self.config.to_json())
        return folder

    # -- one step ------------------------------------------------------------------------------------------------------

    def _one_step(self) -> tuple[dict[str, Tensor], ControlMap | None, Tensor]:
        # Seeded anew for every step: a resumed run needs no random state to draw what the first would have drawn.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        second = self.step >= self.config.stage1_steps
        batch = self._draw(generator, second)
        noise = torch.randn(batch.latents.shape, generator=generator)
        steps = int(self.backbone.pipe.scheduler.config.num_train_timesteps)
        timesteps = torch.randint(steps, (len(batch.latents),), generator=generator)
        result = self._dual(batch, noise, timesteps) if second else naive_step(self.backbone, batch, noise, timesteps)
        for name, value in result.terms.items():
            if not torch.isfinite(value):
                raise TrainingDivergedError(f"step {self.step}: {name} is {value.item()} at t = {timesteps.tolist()}")
        loss = self._weigh(result.terms) if second else result.terms["denoise"]
        penalty = self.trained.penalty()
        loss = loss if penalty is None else loss + penalty
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.trained.after_backward(self.step)
        return {**result.terms, "loss": loss}, result.control, timesteps

    def _concept(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """What the model of stage 1, frozen, adds for the target alone: v1(target) - v1(empty), (B, C, h, w)."""
        pipe = self.backbone.pipe
        if self.extractor is None:
            self.extractor = {name: value.detach().clone() for name, value in self.trained.state().items()}
        ids = pipe.tokenizer([self.target_text, ""], padding="max_length", truncation=True, return_tensors="pt")
        target, empty = encode_text(pipe, ids.input_ids)
        with torch.no_grad(), self.trained.using(self.extractor):
            said, unsaid = (
                pipe.unet(noisy, timesteps, encoder_hidden_states=text.expand(len(noisy), -1, -1)).sample
                for text in (target, empty)
            )
        return said - unsaid

    def _dual(self, batch: Batch, noise: Tensor, timesteps: Tensor) -> Step:
        return dual_path_step(
            self.backbone,
            batch,
            noise,
            timesteps,
            self.config.control,
            features=self.config.fine_features,
            enhance=self.config.weight_enhancement > 0,
            trusted=self.config.trusted,
            map_source=self.config.map_source,
            concept=self._concept if self.config.weight_purecc else None,
        )

    def _weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum, each term brought to the size that the denoising term has when stage 2 begins.

        Loss terms differ by orders of magnitude (attention probabilities, features, noise). The factor is the ratio of
        the means of both terms over the first :data:`SIZING` steps that they were there in, and then stays: a term that
        has done its work becomes small.
        """
        for name, value in terms.items():
            seen = self.sizes.setdefault(name, [])
            if len(seen) < SIZING and value.item() > 0:
                seen.append(value.item())
        total = torch.zeros(())
        for name, value in terms.items():
            if self.sizes[name] and self.sizes["denoise"]:
                scale = mean(self.sizes["denoise"]) / mean(self.sizes[name])
                total = total + getattr(self.config, WEIGHTS[name]) * scale * value
        return total

    def _draw(self, generator: torch.Generator, second: bool) -> Batch:
        count = self.config.batch_size
        own = round(count * self.config.reference_share) if second and self.config.reference_portraits else 0
        if own and not self.references:
            self.references = self._reference_items()
        chosen = torch.randint(len(self.custom), (count - own,), generator=generator).tolist()
        drawn = torch.randint(max(1, len(self.references)), (own,), generator=generator).tolist()
        again = (torch.rand(own, generator=generator) < self.config.reconstruction_share).tolist()
        if not (self.config.weight_reconstruction or self.config.weight_prior):
            again = [False] * own
        items = [self.custom[i] for i in chosen] + [self.references[i] for i in drawn]
        return collate(self.backbone, items, [False] * (count - own) + again)

    # -- what is known before any step ---------------------------------------------------------------------------------

    def _custom_items(self) -> list[Item]:
        pipe, tokenizer = self.backbone.pipe, self.backbone.pipe.tokenizer
        pairs = [
            encode_pair(tokenizer, e.base_text, e.target_text, replaces=e.replaces, phrases=e.phrases)
            for e in self.custom_set
        ]
        images = to_tensor([example.image for example in self.custom_set], pipe.unet.config.sample_size * 8)
        latents = torch.cat([encode_images(pipe, part) for part in images.split(8)])
        target = self.backbone.clip.text_features([self.target_text])[0]
        if self.config.weight_enhancement:
            with torch.no_grad():
                portraits = torch.cat([self.backbone.clip.image_features(part) for part in images.split(8)])
        else:
            portraits = target.expand(len(images), -1)
        return [
            Item(latent, pair, self._distances(pair.phrases), portrait, target)
            for latent, pair, portrait in zip(latents, pairs, portraits, strict=True)
        ]

    def _distances(self, phrases: Sequence[Any]) -> Tensor:
        return self.backbone.clip.phrase_distances([phrase.text for phrase in phrases], self.target_text)

    def _reference_items(self) -> list[Item]:
        """Portraits that the reference draws for varied base texts, once."""
        pipe = self.backbone.pipe
        count = self.config.reference_portraits
        texts = [self.reference_texts[i % len(self.reference_texts)] for i in range(count)]
        seeds = [self.config.seed * 100_003 + i for i in range(count)]
        with self.backbone.reference():
            latents = sample(pipe, [text for text, _ in texts], seeds=seeds, output_type="latent")
        target = self.custom[0].target_features
        items = []
        for latent, (text, replaces) in zip(latents, texts, strict=True):
            pair = encode_pair(pipe.tokenizer, text, self.target_text, replaces=replaces)
            items.append(Item(latent, pair, self._distances(pair.phrases), target, target, is_reference=True))
        return items

    # -- log and checkpoints -------------------------------------------------------------------------------------------

    def _log(self, terms: dict[str, Tensor], timesteps: Tensor, bar: tqdm) -> None:
        stage = 1 if self.step < self.config.stage1_steps else 2
        values = {name: value.item() for name, value in terms.items()}
        line = {"step": self.step, "stage": stage, "timesteps": timesteps.tolist(), **values}
        self.history.append(line)
        bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
        bar.update()
        if self.output_dir:
            with (self.output_dir / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")

    def _checkpoint(self) -> None:
        assert self.output_dir is not None
        state = {
            "trained": self.trained.state(),
            "optimizer": self.optimizer.state_dict(),
            "sizes": self.sizes,
            "extractor": self.extractor,
            "step": self.step,
            "seconds": self.seconds,
            "config": self.config.to_json(),
        }
        temporary = self.output_dir / "checkpoint.tmp"
        torch.save(state, temporary)
        temporary.replace(self.output_dir / "checkpoint.pt")

    def _resume(self) -> None:
        path = None if self.output_dir is None else self.output_dir / "checkpoint.pt"
        if path is None or not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if TrainConfig.from_json(state["config"]) != self.config:
            raise ValueError(f"{path} belongs to a run with another configuration: choose another output folder")
        self.trained.restore(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sizes, self.step, self.seconds = state["sizes"], state["step"], state["seconds"]
        self.extractor = state["extractor"]
        log = path.with_name("log.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()][: self.step] if log.exists() else []
        self.history = lines
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        logger.info("resumed at step %d", self.step)
