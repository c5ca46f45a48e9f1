"""Texts that ask for targets which were learned before.

The reference of a run on top of earlier adapters paints their targets, but only where a text asks for them. A set's own
reference texts never do. Without further texts nothing would hold the response path to the earlier targets, and each
stage of a chain would forget them. If only reference portraits asked for them, and never a portrait with the new
target, the response path would learn that the two exclude each other.

Texts that ask for nothing are plain: their reference is the model without earlier adapters, so that the errors of a
chain do not add up. Ours, not the paper's.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from spf_lite.data.batch import Item
from spf_lite.data.prompts import split_phrases
from spf_lite.data.sets.captions import occurrences
from spf_lite.data.texts import ReferenceTexts, text_pair
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.models.tokenizer import PromptTooLongError


@dataclass(frozen=True)
class EarlierTargets:
    """What texts of a run may ask for besides.

    Attributes:
        targets: that were learned before.
        target_text: what the run learns.
        share: of the texts that ask for earlier targets, evenly spread over them, in [0, 1].
        seed: of the choice.
        plain_texts: whether a text that asks for none of them is plain, and its reference the model without any
            earlier adapter.
        replaces: phrases of base texts that the run's target takes the place of.
    """

    targets: tuple[LearnedTarget, ...] = ()
    target_text: str = ""
    share: float = 0.0
    seed: int = 0
    plain_texts: bool = True
    replaces: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        targets: Sequence[LearnedTarget | None],
        target_text: str,
        share: float,
        seed: int,
        plain_texts: bool = True,
        replaces: Sequence[str] = (),
    ) -> EarlierTargets:
        """Without those that are not known, and without what the run learns: no base text may hold it.

        If one is not known, any text may ask for it, and none is plain.
        """
        named = [one for one in targets if one is not None]
        other = tuple(one for one in named if not occurrences(one.text, target_text))
        return cls(other, target_text, share, seed, plain_texts and len(named) == len(targets), tuple(replaces))

    @property
    def need_original(self) -> bool:
        """Whether some texts are plain, so that the model without earlier adapters is needed."""
        return bool(self.targets) and self.plain_texts

    def marked(self, items: Sequence[Item]) -> list[Item]:
        """The same items; those with a plain text are marked."""
        if not self.need_original:
            return list(items)
        asks = [any(occurrences(item.pair.base_text, one.text) for one in self.targets) for item in items]
        return [replace(item, is_plain=not asking) for item, asking in zip(items, asks, strict=True)]

    def drawn(self, count: int, draw: int = 0) -> list[tuple[LearnedTarget, ...]]:
        """For each of some texts the targets that it asks for.

        A share of the texts asks, one half of these for a single target, as most texts of users do, the other half for
        every target with probability one half, and for one of them at least.

        Args:
            count: of the texts.
            draw: number of the choice; other numbers give other ones.
        """
        if not self.targets:
            return [()] * count
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + draw)
        chosen: list[tuple[LearnedTarget, ...]] = []
        for number in range(count):
            if int((number + 1) * self.share) == int(number * self.share):
                chosen.append(())
                continue
            asked = (torch.rand(len(self.targets), generator=generator) < 0.5).tolist()
            alone = bool(torch.rand((), generator=generator) < 0.5)
            single = int(torch.randint(len(asked), (), generator=generator))
            if alone or not any(asked):
                asked = [row == single for row in range(len(asked))]
            chosen.append(tuple(one for one, wanted in zip(self.targets, asked, strict=True) if wanted))
        return chosen

    def added_to(self, backbone: Backbone, texts: ReferenceTexts) -> list[tuple[str, str | None]]:
        """Reference texts, a share of which asks for earlier targets, as far as the text encoder takes such long texts.

        A text that asks is one that a target was learned with, if the adapters name any. For the given texts the model
        with earlier adapters may not show what they ask for: a set that teaches a hair colour has texts without one,
        and for these a beard hardly appeared on the reference portraits.

        Args:
            backbone: whose text encoder they must fit.
            texts: base texts, each with the phrase that the new target replaces.
        """
        result = []
        for number, ((text, replaces), wanted) in enumerate(zip(texts, self.drawn(len(texts)), strict=True)):
            if wanted and (own := self._learned_with(wanted[number % len(wanted)], number)):
                text, replaces = own
            for target in wanted:
                longer = asking_for(text, replaces, target)
                if self.fits(backbone, *longer):
                    text, replaces = longer
            result.append((text, replaces))
        return result

    def _learned_with(self, target: LearnedTarget, number: int) -> tuple[str, str | None] | None:
        """One of the texts that a target was learned with, and the phrase in it that the run's target replaces."""
        texts = [text for text in target.texts if not occurrences(text, self.target_text)]
        if not texts:
            return None
        text = texts[number % len(texts)]
        return text, next((phrase for phrase in split_phrases(text) if phrase in self.replaces), None)

    def asked(self, backbone: Backbone, texts: Sequence[str], target: LearnedTarget) -> list[str]:
        """Each of some base texts with one earlier target, if the text encoder takes it."""
        longer = [asking_for(text, None, target)[0] for text in texts]
        return [long if self.fits(backbone, long) else text for text, long in zip(texts, longer, strict=True)]

    def fits(self, backbone: Backbone, text: str, replaces: str | None = None) -> bool:
        """Whether the text encoder takes a base text, and the new target with it."""
        try:
            text_pair(backbone, text, self.target_text, replaces)
        except PromptTooLongError:
            return False
        return True


def asking_for(text: str, replaces: str | None, target: LearnedTarget) -> tuple[str, str | None]:
    """A base text that asks for a target. It takes the place of a phrase that it replaced when it was learned, or else
    is added at the end. Phrases that it excludes go.

    Args:
        text: a base text.
        replaces: the phrase in it that the *new* target takes the place of, if it does.
        target: the earlier one.

    Returns:
        the text, and the phrase that the new target replaces in it: the earlier one, where both take the same place.
    """
    if occurrences(text, target.text):
        return text, replaces
    phrases = [phrase for phrase in split_phrases(text) if phrase not in target.excludes or phrase == replaces]
    phrase = next((one for one in phrases if one in target.replaces), None)
    if phrase is None:
        return ", ".join([*phrases, target.text]), replaces
    phrases[phrases.index(phrase)] = target.text
    return ", ".join(phrases), target.text if replaces == phrase else replaces
