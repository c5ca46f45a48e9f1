"""From portraits to numbers: every measure of an audit, prompt by prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from spf_lite.audit.measures.comparisons import Comparison
from spf_lite.audit.measures.pictures import change_outside, edge_change, pixel_change
from spf_lite.audit.report import AT_BASE, AT_COMPLETE, BY_WORDS, MEASURES
from spf_lite.audit.sampling import Portraits
from spf_lite.evaluation.measures.pictures import Floats, leakage, similarity, to_array
from spf_lite.evaluation.measuring import clip_images
from spf_lite.models.backbone import Backbone


def measures_taken(complete: bool, target: bool, region: bool, comparisons: Collection[str] = ()) -> list[str]:
    """Names of the measures that an audit takes, known before anything is sampled.

    Args:
        complete: whether there are complete texts.
        target: whether there is a target text.
        region: whether there are masks.
        comparisons: names of measures that were asked for.
    """
    names = {"reconstruction", "edge change" + AT_BASE, "CLIP-I" + AT_BASE, "unrelated prompts"}
    names |= {name + AT_BASE for name in comparisons}
    if complete:
        names |= {"pixel change", "edge change", "CLIP-I", *comparisons}
        names |= {"pixel change" + BY_WORDS, "pixel change" + AT_COMPLETE, "CLIP-I" + AT_COMPLETE}
    if complete and target:
        names |= {"CLIP-T before", "CLIP-T" + BY_WORDS, "CLIP-T after", "CLIP-T gain", "CLIP-T gain over words"}
    if complete and (target or region):
        names |= {"leakage", "change outside", "change outside" + BY_WORDS}
    return [name for name in MEASURES if name in names]


def measured(
    backbone: Backbone,
    portraits: Portraits,
    target_text: str | None = None,
    regions: NDArray[np.bool_] | None = None,
    comparisons: Sequence[Comparison] = (),
) -> dict[str, Floats]:
    """All measures of N prompts but that of unrelated prompts: name to (N,), nan where one is not defined.

    Args:
        backbone: its CLIP is used.
        portraits: of N prompts.
        target_text: for CLIP-T.
        regions: where the target may act, (N, H, W).
        comparisons: further measures.
    """
    base, at_base = to_array(portraits.base), to_array(portraits.at_base)
    seen = clip_images(backbone, portraits.base)
    values = {
        "reconstruction": pixel_change(base, at_base),
        "edge change" + AT_BASE: edge_change(base, at_base),
        "CLIP-I" + AT_BASE: similarity(seen, clip_images(backbone, portraits.at_base)),
    }
    for comparison in comparisons:
        values[comparison.measure + AT_BASE] = comparison(portraits.base, portraits.at_base)
    if not portraits.at_complete:
        return values
    complete, seen_after = to_array(portraits.at_complete), clip_images(backbone, portraits.at_complete)
    by_words, seen_by_words = to_array(portraits.by_words), clip_images(backbone, portraits.by_words)
    values["pixel change"] = pixel_change(base, complete)
    values["pixel change" + BY_WORDS] = pixel_change(base, by_words)
    values["pixel change" + AT_COMPLETE] = pixel_change(by_words, complete)
    values["edge change"] = edge_change(base, complete)
    values["CLIP-I"] = similarity(seen, seen_after)
    values["CLIP-I" + AT_COMPLETE] = similarity(seen_by_words, seen_after)
    for comparison in comparisons:
        values[comparison.measure] = comparison(portraits.base, portraits.at_complete)
    if target_text is not None:
        text = backbone.clip.text_features([target_text]).cpu().double().numpy()
        values["CLIP-T before"], values["CLIP-T after"] = similarity(seen, text), similarity(seen_after, text)
        values["CLIP-T" + BY_WORDS] = similarity(seen_by_words, text)
        values["CLIP-T gain"] = values["CLIP-T after"] - values["CLIP-T before"]
        values["CLIP-T gain over words"] = values["CLIP-T after"] - values["CLIP-T" + BY_WORDS]
    if regions is not None:
        values["leakage"] = leakage(base, complete, regions)
        values["change outside"] = change_outside(base, complete, regions)
        values["change outside" + BY_WORDS] = change_outside(base, by_words, regions)
    return values
