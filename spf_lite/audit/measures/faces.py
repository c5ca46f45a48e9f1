"""Distance of identities by dlib's face recognition, whose weights come in a package (the extra ``identity``).

A detector (Dalal & Triggs 2005) finds the largest face, five landmarks align it, and a residual network gives 128
numbers (King 2017). dlib's documentation takes faces less than 0.6 apart for one person. In drawings, such as those of
the tiny world, the detector misses most faces: they are left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Where the network lies in the package, and the landmarks.
_NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"


@dataclass(frozen=True)
class Identity:
    """Euclidean distance of two faces' descriptors: 0 for the same picture, nan where either shows no face.

    Attributes:
        describe: a picture (H, W, 3), uint8, to the descriptor of its largest face, (128,), or None.
    """

    describe: Callable[[NDArray[np.uint8]], NDArray[np.float64] | None]
    measure: str = "identity distance"

    @classmethod
    def load(cls) -> Identity:
        """Load detector, landmarks and network.

        Raises:
            ValueError: if the packages are not installed.
        """
        try:
            import dlib
        except ImportError as error:
            raise ValueError(_hint(error)) from error
        spec = find_spec("face_recognition_models")  # its own module needs an outdated part of setuptools
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise ValueError(_hint("no module named 'face_recognition_models'"))
        models = Path(folders[0]) / "models"
        detector = dlib.get_frontal_face_detector()
        landmarks = dlib.shape_predictor(str(models / _LANDMARKS))
        network = dlib.face_recognition_model_v1(str(models / _NETWORK))

        def describe(picture: NDArray[np.uint8]) -> NDArray[np.float64] | None:
            faces = detector(picture, 0) or detector(picture, 1)  # 1: enlarged, for faces below 80 pixels
            if not faces:
                return None
            face = max(faces, key=lambda found: found.area())
            chip = dlib.get_face_chip(picture, landmarks(picture, face))
            return np.array(network.compute_face_descriptor(chip), dtype=np.float64)

        return cls(describe)

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        found = []
        for pair in zip(before, after, strict=True):
            first, second = (self.describe(np.ascontiguousarray(np.asarray(image.convert("RGB")))) for image in pair)
            found.append(np.nan if first is None or second is None else float(np.linalg.norm(first - second)))
        return np.array(found, dtype=np.float64)


def _hint(error: object) -> str:
    return f"identity needs dlib-bin and face-recognition-models: pip install 'spf-lite[identity]' ({error})"
