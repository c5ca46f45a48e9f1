"""The whole audit of an adapter: load it, sample without and with it, measure, and vary its strength.

The tiny world has a judge that knows what every portrait shows (:mod:`spf_lite.evaluation.measuring`). Other models
have none. So an audit measures how far portraits move, where, and in which direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spf_lite.audit.cases import Case, cases_of
from spf_lite.audit.measures.comparisons import Comparison
from spf_lite.audit.measures.pictures import pixel_change
from spf_lite.audit.measures.regions import adapter_regions, mask_regions
from spf_lite.audit.measuring import measured
from spf_lite.audit.prompts import Prompt, check_texts, completed
from spf_lite.audit.report import AuditReport, SweepPoint, Values
from spf_lite.audit.sampling import Portraits, Sampler
from spf_lite.audit.settings import settings_of
from spf_lite.evaluation.measures.pictures import Floats, to_array
from spf_lite.evaluation.measuring import FIRST_SEED
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import Backbone

#: A sweep of strengths samples this many prompts, the first ones.
SWEPT_PROMPTS = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Audit:
    """What an audit found, and the pictures of each prompt."""

    report: AuditReport
    cases: list[Case]


def audit(
    backbone: Backbone,
    adapter: str | Path,
    prompts: Sequence[Prompt],
    unrelated: Sequence[str] = (),
    *,
    target_text: str | None = None,
    replaces: str | None = None,
    strength: float = 1.0,
    strengths: Sequence[float] = (),
    steps: int = 25,
    guidance_scale: float | None = None,
    masks: Sequence[Image.Image] | None = None,
    comparisons: Sequence[Comparison] = (),
    on_progress: Progress | None = None,
) -> Audit:
    """Measure what an adapter does to the portraits of a model, without a judge.

    Args:
        backbone: the model; afterwards it carries the adapter at the given strength.
        adapter: file or folder of a LoRA.
        prompts: N (:func:`spf_lite.audit.prompts.default_prompts`, or read from a file).
        unrelated: texts without a person.
        target_text: what the adapter shows; without it only base texts, or given complete texts, are sampled.
        replaces: the phrase of each base text that the target takes the place of.
        strength: factor of the adapter's change.
        strengths: of a sweep over the first :data:`SWEPT_PROMPTS` prompts; empty: none.
        steps: denoising steps of each portrait.
        guidance_scale: of classifier-free guidance; None: the model's own.
        masks: where the target may act, N, mode L; None: the adapter's own control map says.
        comparisons: further measures (:mod:`spf_lite.audit.measures.comparisons`).
        on_progress: is called with the number of prompts that are done, and of all of them.

    Raises:
        BackboneError: if the adapter cannot be read or does not fit the model. Nothing was sampled.
        ValueError: for prompts that cannot be used (:func:`spf_lite.audit.prompts.completed`), another number of masks
            than prompts, a number out of its range, or if there is no CLIP model.
    """
    load_adapter(backbone, adapter, strength)
    prompts = completed(backbone, prompts, target_text, replaces)
    check_texts(backbone, unrelated)
    if masks is not None and len(masks) != len(prompts):
        raise ValueError(f"{len(masks)} masks for {len(prompts)} prompts: each needs one")
    target_text = target_text.strip() if target_text else None
    sampler = Sampler(backbone, steps, guidance_scale)
    backbone.clip.model.eval()  # it is loaded here: that it is missing is known before anything is sampled
    seeds = list(range(FIRST_SEED, FIRST_SEED + len(prompts)))
    run = _Run(sampler, prompts, seeds, target_text, masks, comparisons)
    values, cases, known = run.whole(on_progress)
    alone = {name: row[: len(known.base)] for name, row in values.items()}
    if unrelated:
        values["unrelated prompts"] = _row(run.unrelated(unrelated))
    sweep = []
    for factor in strengths:
        if factor != strength:
            load_adapter(backbone, adapter, factor)
        sweep.append(SweepPoint(factor, alone if factor == strength else run.again(known, factor)))
    load_adapter(backbone, adapter, strength)
    region = "masks" if masks is not None else "control map of the adapter" if target_text else "not known"
    report = AuditReport(
        target_text,
        [prompt.base_text for prompt in prompts],
        [prompt.complete_text for prompt in prompts if prompt.complete_text is not None],
        list(unrelated),
        seeds,
        values,
        sweep,
        settings_of(sampler, adapter, strength, region),
    )
    return Audit(report, cases)


@dataclass(frozen=True)
class _Known:
    """Of the first few prompts: portraits without the adapter, and regions; what a sweep needs not make again."""

    base: list[Image.Image]
    by_words: list[Image.Image]
    regions: list[NDArray[np.bool_]]


@dataclass(frozen=True)
class _Run:
    """What all parts of an audit share."""

    sampler: Sampler
    prompts: Sequence[Prompt]
    seeds: Sequence[int]
    target_text: str | None
    masks: Sequence[Image.Image] | None
    comparisons: Sequence[Comparison]

    def whole(self, on_progress: Progress | None) -> tuple[Values, list[Case], _Known]:
        """Every prompt at the strength that is loaded."""
        found: list[dict[str, Floats]] = []
        cases: list[Case] = []
        known = _Known([], [], [])
        for part in self._parts(len(self.prompts)):
            portraits = self.sampler.portraits(self.prompts[part], self.seeds[part])
            regions = self._regions(part, portraits.base)
            found.append(measured(self.sampler.backbone, portraits, self.target_text, regions, self.comparisons))
            cases += cases_of(portraits, regions)
            room = max(0, SWEPT_PROMPTS - len(known.base))
            known.base.extend(portraits.base[:room])
            known.by_words.extend(portraits.by_words[:room])
            known.regions.extend([] if regions is None else regions[:room])
            if on_progress:
                on_progress(part.stop, len(self.prompts))
        return _joined(found), cases, known

    def again(self, known: _Known, strength: float) -> Values:
        """The first few prompts at another strength, which is loaded."""
        found = []
        for part in self._parts(len(known.base)):
            base, by_words = known.base[part], known.by_words[part]
            if strength:
                portraits = self.sampler.portraits(self.prompts[part], self.seeds[part], base, by_words)
            else:  # the model without the adapter, to the last bit: these are painted already
                portraits = Portraits(base, base, by_words, by_words)
            regions = np.stack(known.regions[part]) if known.regions else None
            found.append(measured(self.sampler.backbone, portraits, self.target_text, regions, self.comparisons))
        return _joined(found)

    def unrelated(self, texts: Sequence[str]) -> Floats:
        """How far pictures without a person move, one number for each."""
        found = []
        for part in self._parts(len(texts)):
            seeds = list(range(FIRST_SEED + part.start, FIRST_SEED + part.stop))
            before, after = self.sampler.before(texts[part], seeds), self.sampler.after(texts[part], seeds)
            found.append(pixel_change(to_array(before), to_array(after)))
        return np.concatenate(found)

    def _regions(self, part: slice, base: Sequence[Image.Image]) -> NDArray[np.bool_] | None:
        if self.masks is not None:
            return mask_regions(self.masks[part], base[0].size)
        if self.target_text is None:
            return None
        return adapter_regions(self.sampler.backbone, self.prompts[part], base, self.target_text)

    def _parts(self, count: int) -> list[slice]:
        size = self.sampler.at_a_time
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _joined(parts: Sequence[dict[str, Floats]]) -> Values:
    return {name: _row(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _row(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
