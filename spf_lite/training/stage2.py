"""Between the stages: what stage 2 needs and stage 1 does not.

Two stages, because the control map is made of the difference between both paths: before the model has learned anything
of the target that difference is empty, the map is black, and alignment forbids all learning (over-alignment).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from spf_lite.choices import WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.earlier import EarlierTargets
from spf_lite.data.encoding import reference_items, reference_latents
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.texts import ReferenceTexts, check_texts, with_text_forms
from spf_lite.method.contrast import contrast_directions
from spf_lite.method.control_map import with_averaged_maps
from spf_lite.method.purecc import Extractor
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.adapters.learned import targets_of
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.resting import Resting
from spf_lite.pure_pairs.acting import with_acting
from spf_lite.pure_pairs.pairs import with_pure_pairs
from spf_lite.training.loss_meter import check_finite
from spf_lite.training.passes import Passes
from spf_lite.training.run.export import learned_target
from spf_lite.training.scales import term_scales

logger = logging.getLogger(__name__)

#: How many batches the sizes of the loss terms are measured on when stage 2 begins.
SCALE_BATCHES = 10


def checked_reference_texts(
    backbone: Backbone, custom_set: CustomSet, given: ReferenceTexts | None
) -> list[tuple[str, str | None]]:
    """Base texts of the reference portraits, each with the phrase that the target replaces.

    Args:
        backbone: whose text encoder they must fit.
        custom_set: its own references, or else its base texts, are the default.
        given: instead of the default.

    Raises:
        PromptError: if one does not fit the text encoder or the target.
    """
    if given:
        texts, places = list(given), []
    elif custom_set.references:
        texts, places = list(custom_set.references), list(custom_set.reference_places)
    else:
        texts, places = [(e.base_text, e.replaces) for e in custom_set], [e.where for e in custom_set]
    check_texts(backbone, texts, custom_set[0].target_text, places)
    return texts


def earlier_targets(custom_set: CustomSet, after: Sequence[str | Path], config: TrainConfig) -> EarlierTargets:
    """What reference texts and pure pairs ask for besides: the targets of earlier adapters.

    Raises:
        BackboneError: if there is no adapter, or what it says of its target cannot be read.
    """
    if not (config.earlier_share and config.reference_portraits):
        return EarlierTargets()
    targets = [(path, target) for path in after for target in targets_of(path)]
    if silent := {str(path) for path, target in targets if target is None}:
        logger.warning(
            "%s: no target is named in the file, so no text asks for it, and the run may forget it",
            ", ".join(sorted(silent)),
        )
    found, learned = [target for _, target in targets], learned_target(custom_set)
    options = (config.earlier_share, config.seed, config.original_reference)
    return EarlierTargets.of(found, learned.text, *options, learned.replaces)


@dataclass(frozen=True)
class Stage2:
    """What stage 2 works with; before it begins, only the custom set.

    Attributes:
        custom: the portraits of the custom set, with their averaged maps if the configuration asks for them.
        references: the reference portraits.
        scales: what brings each loss term to the size of the denoising term; empty until stage 2 begins.
        extractor: PureCC's, frozen at the end of stage 1.
    """

    custom: list[Item]
    references: list[Item] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    extractor: Extractor | None = None

    def state_dict(self, config: TrainConfig) -> dict[str, Any]:
        """What a checkpoint of a run with this configuration needs: what was prepared, and cannot be had otherwise."""
        begun = bool(self.scales)
        return {
            "scales": self.scales,
            "extractor": self.extractor.state if self.extractor else None,
            "references": [_row(item) for item in self.references],
            "custom": [_row(item) for item in self.custom] if begun and _remakes(config) else [],
            "regions": [item.region for item in self.custom] if begun and config.map_source == "averaged" else [],
        }


def _remakes(config: TrainConfig) -> bool:
    """Whether stage 2 learns from other portraits or texts than those of the set."""
    return bool(config.pure_pairs or config.fill_captions or config.map_source == "surprise")


def _row(item: Item) -> dict[str, Any]:
    """What :func:`_item` makes the item of."""
    texts = {"base_text": item.pair.base_text, "replaces": item.pair.replaces}
    return {**texts, "latents": item.latents, "region": item.region, "features": item.portrait_features}


def _items(backbone: Backbone, rows: list[dict[str, Any]], like: Item, is_reference: bool) -> list[Item]:
    """The items that :func:`_row` was taken of."""
    if not rows:
        return []
    texts = [(row["base_text"], row["replaces"]) for row in rows]
    items = reference_items(backbone, texts, [row["latents"] for row in rows], like)
    return [
        replace(item, region=row["region"], portrait_features=row["features"], is_reference=is_reference)
        for item, row in zip(items, rows, strict=True)
    ]


def restored(
    state: dict[str, Any], passes: Passes, trained: Trainable, custom: list[Item], earlier: EarlierTargets
) -> Stage2:
    """What :meth:`Stage2.state_dict` was taken of.

    Args:
        state: from a checkpoint.
        passes: of this run.
        trained: what is trained.
        custom: the custom set, encoded.
        earlier: the targets of earlier adapters.
    """
    backbone, like = passes.backbone, custom[0]
    references = _items(backbone, state["references"], like, is_reference=True)
    custom = _items(backbone, state["custom"], like, is_reference=False) or custom
    if state["regions"]:
        custom = [replace(item, region=region) for item, region in zip(custom, state["regions"], strict=True)]
    extractor = None
    if state["extractor"]:
        extractor = Extractor(backbone, trained, state["extractor"], like.pair.target_text)
    custom, references = (_marked(passes, rows, earlier) for rows in (custom, references))
    return Stage2(custom, references, state["scales"], extractor)


def _marked(passes: Passes, items: list[Item], earlier: EarlierTargets) -> list[Item]:
    """The items with what the targets of earlier adapters mean for them."""
    items = earlier.marked(items)
    return with_acting(passes.backbone, items, earlier) if passes.config.earlier_weight != 1 else items


def in_text_forms(backbone: Backbone, items: list[Item], config: TrainConfig) -> list[Item]:
    """The items with the text forms that the configuration asks for."""
    return with_text_forms(backbone, items, config.seed) if config.text_forms == "both" else items


def prepared(
    passes: Passes,
    trained: Trainable,
    custom: list[Item],
    texts: ReferenceTexts,
    earlier: EarlierTargets,
    num_train_timesteps: int,
    resting: Resting,
) -> Stage2:
    """Sample the reference portraits, make maps and pure pairs, freeze the extractor, bring the loss terms to one size.

    It depends on what is trained, on the configuration and its seed alone: done again after an interruption, it gives
    the same.

    Text encoders, autoencoder and CLIP are on the card while portraits are painted and texts are encoded. Averaged maps
    and the sizes of the terms come from passes of both paths, whose recorded layers take as much room as in a step:
    the parts that a step does not need are away then.

    Raises:
        TrainingDivergedError: if anything is not finite.
    """
    backbone, config = passes.backbone, passes.config
    check_finite(trained.state(), f"before step {config.stage1_steps}")
    with resting.back():
        references: list[Item] = []
        if config.reference_portraits:
            asked = earlier.added_to(backbone, texts)
            latents = reference_latents(backbone, asked, config.reference_portraits, config.seed, custom)
            check_finite({f"portrait {k}": one for k, one in enumerate(latents)}, "sampling reference portraits")
            references = in_text_forms(backbone, reference_items(backbone, asked, latents, custom[0]), config)
        with passes.accelerator.autocast():
            if config.map_source == "averaged":
                with resting.away():
                    custom = with_averaged_maps(backbone, custom, config)
                    references = with_averaged_maps(backbone, references, config)
            if _remakes(config):
                whole = [item for item in custom if not item.is_shortened]
                custom = with_pure_pairs(backbone, whole, [text for text, _ in texts], config, references, earlier)
                custom = in_text_forms(backbone, custom, config)
        custom, references = (_marked(passes, rows, earlier) for rows in (custom, references))
        if config.contrast:
            project = partial(backbone.architecture.projected_text, backbone.network)
            rows = contrast_directions([*custom, *references], passes.empty, config.rank, project)
            trained.start_along(config.contrast * rows)
        extractor = None
        if config.weight_purecc:
            state = {name: value.detach().clone() for name, value in trained.state().items()}
            extractor = Extractor(backbone, trained, state, custom[0].pair.target_text)
    if not config.scale_terms:
        return Stage2(custom, references, {name: 1.0 for name in WEIGHTS if config.weight(name)}, extractor)
    ahead = (
        passes.draw(config.stage1_steps + k, custom, references, num_train_timesteps) for k in range(SCALE_BATCHES)
    )
    scales = term_scales(
        config,
        (part for whole in ahead for part in passes.share(whole)),
        lambda part: passes.run(part, in_stage2=True, extractor=extractor),
        num_train_timesteps,
        passes.accelerator,
    )
    return Stage2(custom, references, scales, extractor)
