"""Reference texts that ask for targets which were learned before.

The reference of a run on top of earlier adapters paints their targets, but only where a text asks for them. A set's own
reference texts never do. Without further texts nothing would hold the response path to the earlier targets, and each
stage of a chain would forget them. Ours, not the paper's.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spf_lite.data.prompts import split_phrases
from spf_lite.data.sets.captions import occurrences
from spf_lite.data.texts import ReferenceTexts, text_pair
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.models.tokenizer import PromptTooLongError


def asking_for_earlier(
    backbone: Backbone,
    texts: ReferenceTexts,
    target_text: str,
    earlier: Sequence[LearnedTarget],
    share: float,
    seed: int,
) -> list[tuple[str, str | None]]:
    """Let a share of the reference texts ask for earlier targets.

    Each of these texts asks for every earlier target with probability one half, and for one of them at least, as far as
    the text encoder takes so long a text. An earlier target takes the place of a phrase that it replaced when it was
    learned, or else is added at the end.

    Args:
        backbone: whose text encoder the texts must fit.
        texts: of the run.
        target_text: what the run learns. An earlier target of the same text is left out: a base text must not hold it.
        earlier: the targets that were learned before.
        share: of the texts that ask, evenly spread over them, in [0, 1].
        seed: of the choice.

    Returns:
        As many texts, in their order.
    """
    earlier = [one for one in earlier if not occurrences(one.text, target_text)]
    if not earlier:
        return list(texts)
    generator = torch.Generator().manual_seed(seed)
    result = []
    for number, (text, replaces) in enumerate(texts):
        if int((number + 1) * share) > int(number * share):
            drawn = (torch.rand(len(earlier), generator=generator) < 0.5).tolist()
            drawn[int(torch.randint(len(earlier), (), generator=generator))] |= not any(drawn)
            for wanted in (one for one, asked in zip(earlier, drawn, strict=True) if asked):
                longer = asking_for(text, replaces, wanted)
                if _fits(backbone, *longer, target_text):
                    text, replaces = longer
        result.append((text, replaces))
    return result


def asking_for(text: str, replaces: str | None, target: LearnedTarget) -> tuple[str, str | None]:
    """One reference text that asks for a target, and the phrase in it that the *new* target replaces.

    Args:
        text: a base text.
        replaces: the phrase that the new target takes the place of, if it does. Where the earlier one takes the same
            place, the new one replaces the earlier one.
        target: the earlier one.
    """
    if occurrences(text, target.text):
        return text, replaces
    phrases = split_phrases(text)
    phrase = next((one for one in phrases if one in target.replaces), None)
    if phrase is None:
        return f"{text}, {target.text}", replaces
    phrases[phrases.index(phrase)] = target.text
    return ", ".join(phrases), target.text if replaces == phrase else replaces


def _fits(backbone: Backbone, text: str, replaces: str | None, target_text: str) -> bool:
    try:
        text_pair(backbone, text, target_text, replaces)
    except PromptTooLongError:
        return False
    return True
