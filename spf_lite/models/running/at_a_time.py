"""How many portraits pass through a model at a time when nothing is learned: many small ones, few large ones.

A training step has a batch size, which the user fits to the card. Sampling, painting and measuring between steps have
none. If they took as many portraits of 1,024 pixels as of 128, they would need more memory than any step.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Places of latents that pass together, those of four portraits of Stable Diffusion 1.5.
PLACES = 4 * 64**2


def at_a_time(size: Sequence[int], most: int) -> int:
    """How many portraits of one size pass together, one at least.

    Args:
        size: height and width of their latents.
        most: of small ones.
    """
    height, width = size
    return max(1, min(most, PLACES // (height * width)))
