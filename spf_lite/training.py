"""The trainer: stage 1 (ordinary fine-tuning), stage 2 (dual path), checkpoints, log, export.

Two stages, because the control map is made of the difference between both paths: before the model has learned anything
of the target that difference is empty, the map is black, and alignment forbids all learning (over-alignment).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from tqdm.auto import tqdm

from spf_lite.control_map import ControlMap, ControlMapOptions
from spf_lite.data import CustomSet
from spf_lite.dual_path import Batch, Item, Step, collate, dual_path_step, naive_step
from spf_lite.pipelines import ADAPTER, Backbone, adapters_off, add_lora, encode_images, sample, to_tensor
from spf_lite.prompts import encode_pair

logger = logging.getLogger(__name__)

#: Loss terms of stage 2 and the configuration field that holds their weight.
WEIGHTS = {
    "denoise": "weight_denoise",
    "text": "weight_text",
    "fine": "weight_fine",
    "enhancement": "weight_enhancement",
    "output": "weight_output",
    "reconstruction": "weight_reconstruction",
}


class TrainingDivergedError(FloatingPointError):
    """A loss term is not finite; the message names step, term and timesteps. The last good checkpoint is kept."""


@dataclass(frozen=True)
class TrainConfig:
    """One run. Saved beside every checkpoint and export; see :mod:`spf_lite.methods` for the named recipes.

    Attributes:
        stage1_steps: steps of ordinary fine-tuning.
        stage2_steps: steps of the dual path; 0 is naive fine-tuning.
        batch_size: items per step.
        learning_rate: of AdamW.
        rank: of the LoRA adapters on the cross-attention projections.
        max_grad_norm: largest norm of the gradient.
        seed: of the adapter's start, the data order, noise and timesteps.
        weight_denoise: whether the denoising loss stays in stage 2 (open in the paper; yes).
        weight_text, weight_fine, weight_enhancement: of the paper's three terms. Weights compare like with like: each
            term is first brought to the size that the denoising term has when stage 2 begins.
        weight_output: of output alignment (ours).
        weight_reconstruction: of the reconstruction term (ours); needs reference portraits.
        reference_portraits: how many portraits the reference model draws for itself before stage 2 (ours; 0: none).
        reference_share: share of each stage-2 batch that they make up.
        reconstruction_share: share of them whose response path is fed the base text.
        fine_features: what the fine-grained loss aligns: ``inputs``, ``queries`` or ``outputs`` of cross-attention.
        trusted: one-step predictions serve the enhancement loss below this share of the timesteps (open; 0.7).
        control: options of the control map.
        checkpoint_every: steps between checkpoints.
    """

    stage1_steps: int = 150
    stage2_steps: int = 150
    batch_size: int = 8
    learning_rate: float = 1e-3
    rank: int = 16
    max_grad_norm: float = 1.0
    seed: int = 0
    weight_denoise: float = 1.0
    weight_text: float = 0.0
    weight_fine: float = 0.0
    weight_enhancement: float = 0.0
    weight_output: float = 0.0
    weight_reconstruction: float = 0.0
    reference_portraits: int = 0
    reference_share: float = 0.5
    reconstruction_share: float = 0.33
    fine_features: str = "inputs"
    trusted: float = 0.7
    control: ControlMapOptions = field(default_factory=ControlMapOptions)
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if self.stage1_steps < 0 or self.stage2_steps < 0 or self.stage1_steps + self.stage2_steps == 0:
            raise ValueError(f"{self.stage1_steps} + {self.stage2_steps} steps: at least one is needed, none negative")
        for name in ("batch_size", "rank", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.fine_features not in ("inputs", "queries", "outputs"):
            raise ValueError(f"fine_features={self.fine_features!r}: expected inputs, queries or outputs")
        if self.weight_reconstruction and not self.reference_portraits:
            raise ValueError("weight_reconstruction needs reference_portraits: there is nothing to reconstruct")

    def to_json(self) -> str:
        """As JSON, for the folder of a run."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read back what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "control": ControlMapOptions(**values["control"])})


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
            reference draws its portraits; default: those of the custom set.

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
        self.reference_texts = list(reference_texts or [(e.base_text, e.replaces) for e in custom_set])
        self.custom = self._custom_items()
        self.references: list[Item] = []
        self.parameters = add_lora(backbone.pipe.unet, config.rank, config.seed)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=0.0)
        self.scales: dict[str, float] = {}
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
        layers = get_peft_model_state_dict(self.backbone.pipe.unet, adapter_name=ADAPTER)
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=convert_state_dict_to_diffusers(layers))
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
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return {**result.terms, "loss": loss}, result.control, timesteps

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
        )

    def _weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum, each term brought to the size that the denoising term has when stage 2 begins.

        Loss terms differ by orders of magnitude (attention probabilities, features, noise). The factor is the ratio of
        both terms the first time that both are there, and then stays: a term that has done its work becomes small.
        """
        for name, value in terms.items():
            if name not in self.scales and value.item() > 0 and terms["denoise"].item() > 0:
                self.scales[name] = terms["denoise"].item() / value.item()
        total = torch.zeros(())
        for name, value in terms.items():
            total = total + getattr(self.config, WEIGHTS[name]) * self.scales.get(name, 0.0) * value
        return total

    def _draw(self, generator: torch.Generator, second: bool) -> Batch:
        count = self.config.batch_size
        own = round(count * self.config.reference_share) if second and self.config.reference_portraits else 0
        if own and not self.references:
            self.references = self._reference_items()
        chosen = torch.randint(len(self.custom), (count - own,), generator=generator).tolist()
        drawn = torch.randint(max(1, len(self.references)), (own,), generator=generator).tolist()
        again = (torch.rand(own, generator=generator) < self.config.reconstruction_share).tolist()
        if not self.config.weight_reconstruction:
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
        with adapters_off(pipe.unet):
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
            "adapter": get_peft_model_state_dict(self.backbone.pipe.unet, adapter_name=ADAPTER),
            "optimizer": self.optimizer.state_dict(),
            "scales": self.scales,
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
        set_peft_model_state_dict(self.backbone.pipe.unet, state["adapter"], adapter_name=ADAPTER)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scales, self.step, self.seconds = state["scales"], state["step"], state["seconds"]
        log = path.with_name("log.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()][: self.step] if log.exists() else []
        self.history = lines
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        logger.info("resumed at step %d", self.step)
