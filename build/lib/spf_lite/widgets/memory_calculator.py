"""The memory of a training step, by cause, beside the memory of a GPU.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets
from PIL import Image, ImageDraw

from spf_lite.profiling.memory import StepMemory
from spf_lite.widgets.base import PicturedWidget, among, es_module, labels

#: In the order of the colours of ``widgets.css``.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#7a4f9e", "#f0e442")
#: Largest batch size of the slider.
MAX_BATCH = 16


class MemoryCalculator(PicturedWidget):
    """Choose a training step, a precision, a batch size and a GPU, and see where the memory goes.

    Args:
        steps: for each kind of training step, by name, a dictionary from the name of a precision to the memory
            (:func:`spf_lite.profiling.memory.step_memory`); the precisions are the same for all.
        cards: name of each GPU to its memory in GB (10^9 bytes).
        reserve: GB of every card for the driver, PyTorch itself and temporary tensors within a step.

    Attributes:
        step: name of the step shown.
        precision: name of its precision.
        heading: of the precisions, which may stand for other settings as well.
        batch_size: portraits in a step.
        card: name of the card.

    Raises:
        ValueError: if there are no steps or cards, a step lacks a precision, or there are more causes than colours.
    """

    _esm = es_module("elements.js", "memory_calculator.js")

    steps = traitlets.List(traitlets.Dict()).tag(sync=True)
    causes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    precisions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cards = traitlets.List(traitlets.Dict()).tag(sync=True)
    reserve = traitlets.Float(1.0, min=0).tag(sync=True)
    most = traitlets.Int(MAX_BATCH).tag(sync=True)
    step = traitlets.Unicode().tag(sync=True)
    precision = traitlets.Unicode().tag(sync=True)
    heading = traitlets.Unicode("Precision").tag(sync=True)
    batch_size = traitlets.Int(1, min=1, max=MAX_BATCH).tag(sync=True)
    card = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        steps: Mapping[str, Mapping[str, StepMemory]],
        cards: Mapping[str, float],
        *,
        reserve: float = 1.0,
        **traits: Any,
    ) -> None:
        if not steps or not next(iter(steps.values())):
            raise ValueError("nothing to show: steps is empty")
        if not cards or min(cards.values()) <= 0:
            raise ValueError(f"cards must have memory, and are {dict(cards)}")
        precisions = list(next(iter(steps.values())))
        for name, kinds in steps.items():
            if list(kinds) != precisions:
                raise ValueError(f"{name!r} has the precisions {list(kinds)}, but the first step has {precisions}")
        counted = [counted for kinds in steps.values() for counted in kinds.values()]
        causes = list(dict.fromkeys(cause for each in counted for cause in each.fixed))
        causes += [c for c in dict.fromkeys(c for each in counted for c in each.per_portrait) if c not in causes]
        if len(causes) > len(COLORS):
            raise ValueError(f"{len(causes)} causes, and only {len(COLORS)} colours")
        packed = [
            {
                "label": name,
                "fixed": [[round(kind.fixed.get(c, 0) / 1e9, 4) for c in causes] for kind in kinds.values()],
                "each": [[round(kind.per_portrait.get(c, 0) / 1e9, 4) for c in causes] for kind in kinds.values()],
            }
            for name, kinds in steps.items()
        ]
        super().__init__(
            steps=packed, causes=causes, precisions=precisions, reserve=reserve,
            cards=[{"label": name, "memory": float(memory)} for name, memory in cards.items()],
            **{"step": packed[0]["label"], "precision": precisions[0], "card": next(iter(cards)), **traits},
        )  # fmt: skip

    def parts(self) -> dict[str, float]:
        """GB by cause, as shown, without causes that take nothing."""
        (step,) = (step for step in self.steps if step["label"] == self.step)
        at = self.precisions.index(self.precision)
        values = [
            fixed + self.batch_size * each for fixed, each in zip(step["fixed"][at], step["each"][at], strict=True)
        ]
        return {cause: value for cause, value in zip(self.causes, values, strict=True) if value}

    def total(self) -> float:
        """GB of all causes and the reserve."""
        return sum(self.parts().values()) + float(self.reserve)

    def fits(self) -> bool:
        """Whether the card has that much memory."""
        return self.total() <= self._memory()

    def _memory(self) -> float:
        (card,) = (card for card in self.cards if card["label"] == self.card)
        return float(card["memory"])

    @traitlets.validate("step")
    def _known_step(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.steps), "step")

    @traitlets.validate("precision")
    def _known_precision(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], [str(name) for name in self.precisions], "precision")

    @traitlets.validate("card")
    def _known_card(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.cards), "card")

    def snapshot(self) -> Image.Image:
        """The bar with a line at the card's memory, and a legend."""
        wide, parts = 620, self.parts()
        scale = (wide - 20) / max(self.total(), self._memory())
        sheet = Image.new("RGB", (wide, 96 + 16 * len(parts)), "white")
        pen = ImageDraw.Draw(sheet)
        verdict = "fits" if self.fits() else "does not fit"
        pen.text((10, 6), f"{self.step}, {self.precision}, batch {self.batch_size}: {self.total():.1f} GB", "black")
        left, top = 10.0, 84
        for cause, value in parts.items():
            color = COLORS[self.causes.index(cause)]
            pen.rectangle((left, 28, left + value * scale, 56), fill=color)
            left += value * scale
            pen.rectangle((10, top + 2, 20, top + 10), fill=color)
            pen.text((28, top), f"{cause}: {value:.2f} GB", "black")
            top += 16
        edge = 10 + self._memory() * scale
        pen.line((edge, 22, edge, 62), fill="black", width=2)
        pen.text((10, 64), f"{self.card}, {self._memory():g} GB: {verdict}", "black")
        return sheet

    def __repr__(self) -> str:
        return (
            f"MemoryCalculator({self.step!r}, {self.precision!r}, batch_size={self.batch_size}, {self.total():.1f} GB)"
        )
