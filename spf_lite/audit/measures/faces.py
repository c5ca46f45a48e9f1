"""Distance of identities by dlib's face recognition, whose weights come in a package (the extra ``identity``).

Five landmarks align the largest face (:mod:`spf_lite.audit.measures.face_finding`), and a residual network gives 128
numbers (King 2017). dlib's documentation takes faces less than 0.6 apart for one person. Portraits without a face are
left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spf_lite.audit.measures.face_finding import Picture, compared, face_finder, weights_of

_NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"


@dataclass(frozen=True)
class Identity:
    """Euclidean distance of two faces' descriptors: 0 for the same picture, nan where either shows no face.

    Attributes:
        describe: a picture (H, W, 3), uint8, to the descriptor of its largest face, (128,), or None.
    """

    describe: Callable[[Picture], NDArray[np.float64] | None]
    measure: str = "identity distance"

    @classmethod
    def load(cls) -> Identity:
        """Load detector, landmarks and network.

        Raises:
            ValueError: if the packages are not installed.
        """
        try:
            import dlib

            find = face_finder()
            landmarks, network = weights_of(_LANDMARKS), weights_of(_NETWORK)
        except ImportError as error:
            raise ValueError(
                f"identity needs dlib-bin and face-recognition-models: pip install 'spf-lite[identity]' ({error})"
            ) from error
        align, embed = dlib.shape_predictor(landmarks), dlib.face_recognition_model_v1(network)

        def describe(picture: Picture) -> NDArray[np.float64] | None:
            face = find(picture)
            if face is None:
                return None
            chip = dlib.get_face_chip(picture, align(picture, face))
            return np.array(embed.compute_face_descriptor(chip), dtype=np.float64)

        return cls(describe)

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        return compared(self.describe, lambda first, second: float(np.linalg.norm(first - second)), before, after)
