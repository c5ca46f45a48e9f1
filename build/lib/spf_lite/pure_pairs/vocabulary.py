"""What base texts say, and where: phrases sorted by their place in the text.

Base texts of varied people ("a person, brown short hair, smiling, blue hoodie") are lists of phrases, and most lists
have the same order. So the place of a phrase tells which phrases exclude each other: "smiling" and "sad" have the same
place, "smiling" and "blue hoodie" have not. Nothing else is known of the phrases.

Ours, not the paper's. In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low

import torch

from spf_lite.data.prompts import split_phrases


class Vocabulary:
    """The phrases of some base texts.

    Args:
        texts: base texts, phrases between commas. A few hundred, so that every phrase stands in one of them.

    Attributes:
        places: phrase to its place, the median of its positions in the texts; the first position is 0.
        phrases: place to the phrases that stand there, in the order in which they first appear.

    Raises:
        ValueError: if there is no text.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if not texts:
            raise ValueError("a vocabulary needs base texts to read its phrases from")
        self.texts = [split_phrases(text) for text in texts]
        positions: dict[str, list[int]] = {}
        for phrases in self.texts:
            for position, phrase in enumerate(phrases):
                positions.setdefault(phrase, []).append(position)
        self.places = {phrase: median_low(found) for phrase, found in positions.items()}
        self.phrases: dict[int, list[str]] = {}
        for phrase, place in self.places.items():
            self.phrases.setdefault(place, []).append(phrase)

    def filled_by(self, text: str) -> set[int]:
        """The places that a text fills. A phrase that the vocabulary does not know fills none."""
        return {self.places[phrase] for phrase in split_phrases(text) if phrase in self.places}

    def insert(self, text: str, additions: Mapping[int, str | None]) -> str:
        """A base text with further phrases, in the order of their places.

        Args:
            text: the base text. Its unknown phrases keep their position.
            additions: place to phrase; None adds nothing.
        """
        own = [(self.places.get(phrase, k), 0, k, phrase) for k, phrase in enumerate(split_phrases(text))]
        new = [(place, 1, 0, phrase) for place, phrase in additions.items() if phrase]
        return ", ".join(phrase for *_, phrase in sorted(own + new))

    def draw(self, places: Sequence[int], generator: torch.Generator) -> dict[int, str | None]:
        """The phrases that one of the texts has at some places; None where it has none.

        Args:
            places: the places to fill.
            generator: chooses the text.
        """
        phrases = self.texts[int(torch.randint(len(self.texts), (), generator=generator))]
        at = {self.places[phrase]: phrase for phrase in phrases}
        return {place: at.get(place) for place in places}
