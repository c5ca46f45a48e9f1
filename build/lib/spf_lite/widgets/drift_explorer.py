"""Which words paint something else since a model was tuned, and the portraits in which they do.

For each model every word of the base texts has a bar. It says how much more the portraits of texts with the word have
moved than the others (:mod:`spf_lite.evaluation.drift`). Everything is in the widget's state, so it works on a static
page.

In the book: :doc:`/11-one-after-another`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets
from PIL import Image

from spf_lite.evaluation.drift import drift_by_word, words_of
from spf_lite.evaluation.statistics import holm
from spf_lite.widgets.base import PicturedWidget, among, es_module, labels
from spf_lite.widgets.content.image_encoding import decode, side_by_side
from spf_lite.widgets.content.series import listed, packed_people, packed_pictures

_KEYS = {"label", "moved", "images"}


class DriftExplorer(PicturedWidget):
    """The words of the base texts by their drift, and portraits of the texts that have a word.

    Args:
        models: one dictionary for each model, with ``label``, ``moved`` (how far the portrait of each of N texts has
            moved, (N,), or (S, N) after S training runs) and ``images`` (its portraits of the first K texts).
        texts: N base texts.
        before: portraits of the first K texts by the model before.
        most: how many words of each model are listed.

    Attributes:
        model: label of the model shown.
        word: the word shown; at first the one that drifted most.

    Raises:
        ValueError: if something is missing or does not fit, or no word stands in enough texts.
    """

    _esm = es_module("elements.js", "drift_explorer.js")

    models = traitlets.List(traitlets.Dict()).tag(sync=True)
    texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    before = traitlets.List(traitlets.Unicode()).tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    word = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        models: Sequence[Mapping[str, Any]],
        texts: Sequence[str],
        before: Sequence[Image.Image],
        *,
        most: int = 10,
        **traits: Any,
    ) -> None:
        said = packed_people(texts)
        shown = len(listed(before, "before"))
        if not 0 < shown <= len(said):
            raise ValueError(f"before has {shown} pictures for {len(said)} texts: expected one for each of the first")
        packed = [_packed(item, f"models[{k}]", said, shown, most) for k, item in enumerate(listed(models, "models"))]
        if not packed:
            raise ValueError("nothing to explore: models is empty")
        if len(set(labels(packed))) < len(packed):
            raise ValueError("two models have the same label")
        chosen = traits.get("model", packed[0]["label"])
        first = next((item for item in packed if item["label"] == chosen), packed[0])
        super().__init__(
            models=packed,
            texts=said[:shown],
            before=packed_pictures(before, "before", shown),
            **{"model": first["label"], "word": first["words"][0]["word"], **traits},
        )

    def current(self) -> dict[str, Any]:
        """The model that is shown."""
        model: dict[str, Any] = next(item for item in self.models if item["label"] == self.model)
        return model

    def people(self) -> list[int]:
        """Which of the texts with pictures have the word that is shown."""
        return [k for k, text in enumerate(self.texts) if self.word in words_of(text)]

    @traitlets.validate("model")
    def _known_model(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.models), "model")

    @traitlets.validate("word")
    def _known_word(self, proposal: dict[str, Any]) -> str:
        # The model may change later in the same message, so a word of any model is accepted.
        known = [str(entry["word"]) for item in self.models for entry in item["words"]]
        return among(proposal["value"], list(dict.fromkeys(known)), "word")

    @traitlets.observe("model")
    def _keep_word_possible(self, change: dict[str, Any]) -> None:
        words = [entry["word"] for entry in self.current()["words"]]
        if self.word not in words:
            self.word = words[0]

    def snapshot(self) -> Image.Image:
        """Portraits of the texts with the word, before and beneath them after; of all texts if none has it."""
        chosen = self.people()[:6] or list(range(min(6, len(self.texts))))
        rows = [side_by_side([decode(row[k]) for k in chosen]) for row in (self.before, self.current()["images"])]
        sheet = Image.new("RGB", (rows[0].width, sum(row.height + 4 for row in rows) - 4), "white")
        for number, row in enumerate(rows):
            sheet.paste(row, (0, number * (row.height + 4)))
        return sheet

    def __repr__(self) -> str:
        return f"DriftExplorer({len(self.models)} models, model={self.model!r}, word={self.word!r})"


def _packed(item: Any, where: str, texts: Sequence[str], shown: int, most: int) -> dict[str, Any]:
    """A model with its words, largest drift first."""
    if not isinstance(item, Mapping) or set(item) != _KEYS:
        raise ValueError(f"{where} must have {', '.join(sorted(_KEYS))}")
    try:
        drift = drift_by_word(texts, item["moved"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not drift:
        raise ValueError(f"{where}: no word stands in enough of the {len(texts)} texts")
    stands = holm(drift)
    return {
        "label": str(item["label"]),
        "images": packed_pictures(item["images"], f"{where}: images", shown),
        "words": [
            {"word": word, "stands": word in stands, **{k: round(getattr(e, k), 5) for k in ("mean", "low", "high")}}
            for word, e in list(drift.items())[:most]
        ],
    }
