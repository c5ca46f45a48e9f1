"""Graphics cards: their memory, and how fast they are expected to compute.

A card never reaches the peak that its data sheet names. :data:`EFFICIENCY` is the share of it that one published run of
Stable Diffusion reached, on a card of the T4's generation. So a predicted time is an estimate. Nobody has checked it on
a T4, whose power is limited to 70 watts.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds for one portrait of Stable Diffusion 1 at 512 pixels, 50 guided steps in 16 bits with fused attention, on a
#: Titan RTX (documentation of diffusers 0.24, "Speed up inference"); and that card's peak by NVIDIA's data sheet.
PUBLISHED_SECONDS, PUBLISHED_STEPS, PUBLISHED_PEAK = 2.63, 50, 130e12
#: Share of the peak that this was. A test counts the operations anew.
EFFICIENCY = 0.234


@dataclass(frozen=True)
class Card:
    """A graphics card.

    Attributes:
        name: of the card.
        gigabytes: of memory (10^9 bytes).
        peak: operations in a second in 16 bits, without sparsity, by the maker's data sheet; None: not known.
    """

    name: str
    gigabytes: float
    peak: float | None = None

    def __str__(self) -> str:
        return f"a {self.name} of {self.gigabytes:g} GB"

    def seconds(self, operations: float) -> float:
        """Estimated time of so many operations.

        Raises:
            ValueError: if the card's peak is not known.
        """
        if self.peak is None:
            raise ValueError(f"{self.name}: how fast it computes is not known")
        return operations / (self.peak * EFFICIENCY)


#: Cards by name. Source: NVIDIA's data sheets.
CARDS = {card.name: card for card in (Card("T4", 16, 65e12), Card("L4", 24, 121e12), Card("A100", 40, 312e12))}
