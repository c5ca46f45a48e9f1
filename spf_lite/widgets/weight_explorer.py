"""The portraits and measures for several weights of a loss term, with a slider over the weights.

Every weight is a run of its own, made beforehand. Its portraits and measures are in the widget's state, so it works on
a static page, without Python and without a network.

In the book: :doc:`/08-response-enhancement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.widgets.base import PicturedWidget, among, es_module, labels
from spf_lite.widgets.content.image_encoding import beneath, decode, side_by_side
from spf_lite.widgets.content.series import listed, packed_people, packed_pictures, packed_series

_KEYS = {"label", "weights", "images", "measures", "remarks", "changes"}


class WeightExplorer(PicturedWidget):
    """Compare the weights of a loss term with each other and with the base model.

    Args:
        sweeps: one dictionary for each loss term whose weight was varied, with ``label``, ``weights`` (K increasing
            numbers), ``images`` (for each of the K weights one picture of each person) and, where known, ``measures``
            (name to K shares from 0 to 1; None where it was not measured), ``remarks`` (K short texts such as "weak",
            "right", "too much") and ``changes`` (for each weight the texts that
            :meth:`TrainConfig.changed <spf_lite.config.TrainConfig.changed>` takes).
        people: the prompts of the people, one text for each.
        base: one picture of each person by the base model.
        word: name of the numbers, such as "strength" or "timestep".
        kind: name of that by which sweeps differ; the legend of their buttons.

    Attributes:
        sweep: label of the sweep shown.
        choice: index of the weight shown, from 0; initially the middle one.

    Raises:
        ValueError: if there are no sweeps or people, or if something does not fit; the message names the place.
    """

    _esm = es_module("elements.js", "charts.js", "weight_explorer.js")

    sweeps = traitlets.List(traitlets.Dict()).tag(sync=True)
    people = traitlets.List(traitlets.Unicode()).tag(sync=True)
    base = traitlets.List(traitlets.Unicode()).tag(sync=True)
    word = traitlets.Unicode("weight").tag(sync=True)
    kind = traitlets.Unicode("Loss weight").tag(sync=True)
    sweep = traitlets.Unicode().tag(sync=True)
    choice = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        sweeps: Sequence[Mapping[str, Any]],
        people: Sequence[str],
        base: Sequence[Image.Image] | None = None,
        *,
        word: str = "weight",
        kind: str = "Loss weight",
        **traits: Any,
    ) -> None:
        texts = packed_people(people)
        packed = _packed(sweeps, len(texts))
        first = next((sweep for sweep in packed if sweep["label"] == traits.get("sweep")), packed[0])
        super().__init__(
            sweeps=packed, people=texts, word=word, kind=kind,
            base=[] if base is None else packed_pictures(base, "base", len(texts)),
            **{"sweep": first["label"], "choice": len(first["weights"]) // 2, **traits},
        )  # fmt: skip

    def current(self) -> dict[str, Any]:
        """The sweep that is shown."""
        sweep: dict[str, Any] = next(sweep for sweep in self.sweeps if sweep["label"] == self.sweep)
        return sweep

    @property
    def weight(self) -> float:
        """The weight that is shown."""
        return float(self.current()["weights"][self.choice])

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The configuration with the changes that belong to the weight shown.

        Raises:
            ValueError: if the sweep has no ``changes``.
        """
        changes = self.current()["changes"]
        if not changes:
            raise ValueError(f"the sweep {self.sweep!r} has no 'changes'")
        return config.changed(changes[self.choice])

    @traitlets.validate("sweep")
    def _known_sweep(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.sweeps), "sweep")

    @traitlets.validate("choice")
    def _known_choice(self, proposal: dict[str, Any]) -> int:
        # Sweep and choice of one message are both set before either is validated, in any order.
        among(self.sweep, labels(self.sweeps), "sweep")
        return among(proposal["value"], range(len(self.current()["weights"])), "choice")

    @traitlets.observe("sweep")
    def _keep_choice_possible(self, change: dict[str, Any]) -> None:
        self.choice = min(self.choice, len(self.current()["weights"]) - 1)

    def snapshot(self) -> Image.Image:
        """The portraits of the weight in a row, beneath those of the base model if these were given."""
        rows = [self.base, self.current()["images"][self.choice]]
        return beneath([side_by_side([decode(uri) for uri in row]) for row in rows if row])

    def __repr__(self) -> str:
        return f"WeightExplorer({len(self.sweeps)} sweeps, sweep={self.sweep!r}, weight={self.weight:g})"


def _packed(sweeps: Any, people: int) -> list[dict[str, Any]]:
    given = listed(sweeps, "sweeps")
    packed = packed_series(given, "sweeps", "weights", people)
    for number, (item, sweep) in enumerate(zip(given, packed, strict=True)):
        where = f"sweeps[{number}]"
        if unknown := sorted(set(map(str, item)) - _KEYS):
            raise ValueError(f"{where} has {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
        for name, values in sweep["measures"].items():
            if outside := [value for value in values if value is not None and not 0 <= value <= 1]:
                raise ValueError(f"{where}: {name!r} must hold shares from 0 to 1, and holds {outside[0]:g}")
        remarks = _for_each_weight(item.get("remarks"), f"{where}: remarks", sweep)
        changes = _for_each_weight(item.get("changes"), f"{where}: changes", sweep)
        sweep["remarks"] = ["" if remark is None else str(remark) for remark in remarks]
        sweep["changes"] = [
            [str(change) for change in listed(texts, f"{where}: changes of weight {weight:g}")]
            for weight, texts in zip(sweep["weights"], changes, strict=bool(changes))
        ]
    return packed


def _for_each_weight(values: Any, where: str, sweep: Mapping[str, Any]) -> list[Any]:
    """One value for each weight, or none at all."""
    if values is None:
        return []
    found, expected = listed(values, where), len(sweep["weights"])
    if len(found) != expected:
        raise ValueError(f"{where} has {len(found)} entries for {expected} weights")
    return found
