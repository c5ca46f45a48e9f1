"""The face of a portrait that measures of faces look at, and the weights of dlib's networks, which come in a package.

A detector (Dalal & Triggs 2005) finds faces, and the largest counts. In drawings, such as those of the tiny world, it
misses most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Found = TypeVar("Found")


def face_finder() -> Callable[[Picture], Any]:
    """Load the detector: it takes a picture (H, W, 3) to dlib's rectangle of the largest face, or None.

    Raises:
        ImportError: if dlib is not installed.
    """
    import dlib

    detector = dlib.get_frontal_face_detector()

    def find(picture: Picture) -> Any:
        faces = detector(picture, 0) or detector(picture, 1)  # 1: enlarged, for faces below 80 pixels
        return max(faces, key=lambda found: found.area(), default=None)

    return find


def weights_of(name: str) -> str:
    """Path of a file of the package face-recognition-models.

    Raises:
        ImportError: if it is not installed.
    """
    spec = find_spec("face_recognition_models")  # its own module needs an outdated part of setuptools
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ImportError("no module named 'face_recognition_models'")
    return str(Path(folders[0]) / "models" / name)


def compared(
    describe: Callable[[Picture], Found | None],
    distance: Callable[[Found, Found], float],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> NDArray[np.float64]:
    """A distance of each of N pairs of faces, (N,); nan where either picture shows none.

    Args:
        describe: a picture (H, W, 3) to what is compared, or None.
        distance: of two descriptions.
        before: N.
        after: N.
    """
    found = []
    for pair in zip(before, after, strict=True):
        first, second = (describe(np.ascontiguousarray(np.asarray(image.convert("RGB")))) for image in pair)
        found.append(np.nan if first is None or second is None else distance(first, second))
    return np.array(found, dtype=np.float64)
