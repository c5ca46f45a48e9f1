"""What makes a run this run and no other: everything that its result depends on.

It lies in the run's folder as ``run.json`` and in every checkpoint. A run is only resumed by one of equal identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from spf_lite import __version__
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet

ReferenceTexts = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class RunIdentity:
    """All that the result of a run depends on.

    Attributes:
        config: its configuration.
        target_text: the attribute to learn.
        portraits: SHA-256 of the pixels of all portraits and masks, in order.
        captions: SHA-256 of all texts of the set, in order.
        reference_texts: SHA-256 of the base texts of the reference portraits.
        base_model: SHA-256 of the base model's weights (:func:`spf_lite.training.run.fingerprint.backbone_digest`).
        initial_adapter: SHA-256 of the low-rank factors that training started from; None: freshly initialised.
        dtype: of the base model's weights.
        version: of the library.
    """

    config: TrainConfig
    target_text: str
    portraits: str
    captions: str
    reference_texts: str
    base_model: str
    initial_adapter: str | None
    dtype: str
    version: str = __version__

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        custom_set: CustomSet,
        reference_texts: ReferenceTexts,
        base_model: str,
        initial_adapter: str | None,
        dtype: torch.dtype,
    ) -> RunIdentity:
        """From what training gets; the arguments are like the attributes."""
        return cls(
            config,
            custom_set[0].target_text,
            portraits_digest(custom_set),
            captions_digest(custom_set),
            texts_digest(reference_texts),
            base_model,
            initial_adapter,
            str(dtype).removeprefix("torch."),
        )

    def differences(self, other: RunIdentity) -> dict[str, tuple[object, object]]:
        """What differs: name to (value of this, value of the other). Options of the configuration have their names."""
        mine, theirs = self._flat(), other._flat()
        names = [*mine, *(name for name in theirs if name not in mine)]
        return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}

    def describe_differences(self, other: RunIdentity) -> str:
        """The same as a text: ``learning_rate (0.001 there, 0.5 here)``, where this identity is "there"."""
        found = self.differences(other).items()
        return ", ".join(f"{name} ({_short(old)} there, {_short(new)} here)" for name, (old, new) in found)

    def extension_problem(self, longer: RunIdentity, step: int) -> str | None:
        """Why ``longer`` is no extension of this run; None if it is one.

        A run that is extended must end as if it had been planned that long. So nothing but the numbers of steps may
        differ, what has been trained must not change its stage, and no schedule may depend on the total.

        Args:
            longer: the identity of the extended run.
            step: how far this run is.
        """
        old, new = self.config, longer.config
        same = replace(new, stage1_steps=old.stage1_steps, stage2_steps=old.stage2_steps)
        if other := self.describe_differences(replace(longer, config=same)):
            return f"only the number of steps may grow, and more differs: {other}"
        if new.steps <= old.steps or new.stage1_steps < old.stage1_steps or new.stage2_steps < old.stage2_steps:
            asked, made = f"{new.stage1_steps} + {new.stage2_steps}", f"{old.stage1_steps} + {old.stage2_steps}"
            return f"{asked} steps are not more than its {made}"
        for name, value in (("schedule", "cosine"), ("trainable", "adalora")):
            if getattr(old, name) == value:
                return f"{name}={value} was planned for {old.steps} steps"
        stage1_over = step > old.stage1_steps or (step == old.stage1_steps and old.stage2_steps > 0)
        if new.stage1_steps != old.stage1_steps and stage1_over:
            return f"stage 1 is over at step {step}: stage1_steps={old.stage1_steps} cannot become {new.stage1_steps}"
        return None

    def to_json(self) -> str:
        """For ``run.json``."""
        return json.dumps({**asdict(self), "config": json.loads(self.config.to_json())}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunIdentity:
        """Read back what :meth:`to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            found = cls(**{**values, "config": TrainConfig.from_json(json.dumps(values["config"]))})
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not the identity of a run of this version ({error!r})") from error
        if not all(
            isinstance(value, str) for name, value in values.items() if name not in ("config", "initial_adapter")
        ):
            raise ValueError("not the identity of a run of this version (a value is not a text)")
        return found

    def _flat(self) -> dict[str, object]:
        options = asdict(self.config)
        control = {f"control.{name}": value for name, value in options.pop("control").items()}
        return {**{k: v for k, v in asdict(self).items() if k != "config"}, **options, **control}


def _short(value: object) -> str:
    """A digest by its beginning, everything else as it is."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def portraits_digest(custom_set: CustomSet) -> str:
    """SHA-256 of the pixels of every portrait and mask, in order: what training sees, not how files store it."""
    digest = hashlib.sha256()
    for example in custom_set:
        for image in (example.image, example.mask):
            digest.update(b"none" if image is None else f"{image.mode} {image.size}".encode() + image.tobytes())
    return digest.hexdigest()


def texts_digest(texts: Sequence[object]) -> str:
    """SHA-256 of texts and tuples of texts, in order."""
    return hashlib.sha256(json.dumps(texts, default=list).encode()).hexdigest()


def captions_digest(custom_set: CustomSet) -> str:
    """SHA-256 of every text of a custom set, in order."""
    return texts_digest([(e.base_text, e.target_text, e.replaces, e.phrases) for e in custom_set])
