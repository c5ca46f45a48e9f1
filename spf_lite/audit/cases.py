"""The pictures of an audit's prompts, reduced for showing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from spf_lite.audit.sampling import Portraits

#: Longer side of the pictures that are kept, in pixels.
SHOWN = 384
#: Factor that differences are shown with, so that small ones are seen as well.
GAIN = 2.0
#: Colour of the region's outline.
OUTLINE = (0, 220, 255)


@dataclass(frozen=True)
class Case:
    """The pictures of one prompt.

    Attributes:
        base: without the adapter, for the base text.
        at_base: with the adapter, for the base text.
        at_complete: with the adapter, for the complete text; None: there is none.
        by_words: without the adapter, for the complete text; None: there is none.
        region: where the target may act, white, mode L; None: not known.
    """

    base: Image.Image
    at_base: Image.Image
    at_complete: Image.Image | None = None
    by_words: Image.Image | None = None
    region: Image.Image | None = None

    def difference(self) -> Image.Image:
        """What the adapter changed, times :data:`GAIN`, with the region's outline.

        At the complete text, or at the base text if there is no complete one.
        """
        after = self.at_base if self.at_complete is None else self.at_complete
        difference = ImageChops.difference(self.base.convert("RGB"), after.convert("RGB"))
        difference = difference.point([min(255, round(GAIN * value)) for value in range(256)] * 3)
        if self.region is not None:
            inside = self.region.resize(difference.size).point([0] * 128 + [255] * 128)
            outline = ImageChops.difference(inside, inside.filter(ImageFilter.MinFilter(3)))
            difference.paste(OUTLINE, mask=outline)
        return difference


def cases_of(portraits: Portraits, regions: NDArray[np.bool_] | None) -> list[Case]:
    """The pictures of N prompts, reduced."""
    found = []
    for number, base in enumerate(portraits.base):
        complete = _reduced(portraits.at_complete[number]) if portraits.at_complete else None
        by_words = _reduced(portraits.by_words[number]) if portraits.by_words else None
        region = None if regions is None else _reduced(Image.fromarray(regions[number].astype(np.uint8) * 255))
        found.append(Case(_reduced(base), _reduced(portraits.at_base[number]), complete, by_words, region))
    return found


def _reduced(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return copy
