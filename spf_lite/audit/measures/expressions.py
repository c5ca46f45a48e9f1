"""Distance of expressions by landmarks: how far brows, eyes and mouth of two faces lie apart.

dlib's 68 landmarks (Kazemi & Sullivan 2014) come in the same package as the network of identities (the extra
``identity``). They were learned on the 300-W set (Sagonas et al. 2016), whose licence excludes commercial use. What is
measured is the shape, without a name for it: a smile moves it, and so does a turned head or another face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spf_lite.audit.measures.face_finding import Picture, compared, face_finder, weights_of
from spf_lite.evaluation.measures.pictures import Floats

_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
#: Landmarks that an expression moves: both brows, both eyes, the mouth. The others are jaw and nose.
MOVING = [*range(17, 27), *range(36, 68)]
#: Corners of one eye, and of the other.
EYES = ([36, 39], [42, 45])


@dataclass(frozen=True)
class Expression:
    """:func:`shape_distance` of two faces; nan where either picture shows no face.

    Attributes:
        landmarks: a picture (H, W, 3), uint8, to the landmarks of its largest face, in pixels, (68, 2), or None.
    """

    landmarks: Callable[[Picture], Floats | None]
    measure: str = "expression distance"

    @classmethod
    def load(cls) -> Expression:
        """Load detector and landmarks.

        Raises:
            ValueError: if the packages are not installed.
        """
        try:
            import dlib

            find, weights = face_finder(), weights_of(_LANDMARKS)
        except ImportError as error:
            raise ValueError(
                f"expression needs dlib-bin and face-recognition-models: pip install 'spf-lite[identity]' ({error})"
            ) from error
        fit = dlib.shape_predictor(weights)

        def landmarks(picture: Picture) -> Floats | None:
            face = find(picture)
            return None if face is None else np.array([(p.x, p.y) for p in fit(picture, face).parts()], dtype=float)

        return cls(landmarks)

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        return compared(self.landmarks, shape_distance, before, after)


def shape_distance(first: Floats, second: Floats) -> float:
    r"""Root mean square distance of the landmarks that an expression moves, in distances between the eyes.

    .. math:: \mathrm{expr} = \sqrt{\frac{1}{|M|} \sum_{k \in M} |p_k - q_k|^2}

    with :math:`M` the :data:`MOVING` landmarks. Both faces are turned, moved and scaled so that the middle between
    their eyes lies at 0 and the eyes 1 apart. So place, size and tilt of a head do not count. Lower is less change; 0
    for the same shape.

    Args:
        first: landmarks, (68, 2).
        second: landmarks, (68, 2).
    """
    apart = np.abs(_upright(first) - _upright(second))[MOVING]
    return float(np.sqrt((apart**2).mean()))


def _upright(landmarks: Floats) -> NDArray[np.complex128]:
    """As complex numbers, between whose eyes lies 0, one to the other eye."""
    points = landmarks[:, 0] + 1j * landmarks[:, 1]
    one, other = (points[corners].mean() for corners in EYES)
    upright: NDArray[np.complex128] = (points - (one + other) / 2) / (other - one)
    return upright
