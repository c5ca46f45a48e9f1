"""The distance of identities: its rule on a stand-in, and dlib's networks where the extra is installed."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from spf_lite.audit.measures.faces import Identity
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render

from ..conftest import flat, images

INSTALLED = bool(find_spec("dlib") and find_spec("face_recognition_models"))


def described(picture: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Black pictures show no face; all others somebody whose only number is the brightness."""
    mean = float(picture.mean()) / 255
    return np.array([mean]) if mean > 0 else None


def test_the_distance_is_that_of_the_descriptors_and_needs_two_faces() -> None:
    identity = Identity(described)
    found = identity(images(flat(1.0, 1.0, 0.0)), images(flat(1.0, 0.2, 1.0)))
    assert identity.measure == "identity distance"
    assert np.allclose(found, [0.0, 0.8, np.nan], equal_nan=True)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ValueError, match=r"pip install 'spf-lite\[identity\]'"):
        Identity.load()


@pytest.mark.skipif(not INSTALLED, reason="needs the extra 'identity'")
def test_dlib_sees_a_face_in_a_portrait_and_none_in_a_plain_picture() -> None:
    portrait, plain = render(Portrait(), 128), images(flat(0.5, size=128))[0]
    same, none = Identity.load()([portrait, portrait], [portrait, plain])
    assert same == 0 and np.isnan(none)
