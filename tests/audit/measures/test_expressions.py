"""The distance of expressions: planted shapes, and dlib's landmarks where the extra is installed."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from spf_lite.audit.measures.expressions import EYES, MOVING, Expression, shape_distance
from spf_lite.evaluation.measures.pictures import Floats
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render

from ..conftest import flat, images

INSTALLED = bool(find_spec("dlib") and find_spec("face_recognition_models"))
#: Corners of the mouth.
CORNERS = [48, 54]


def face() -> Floats:
    """Landmarks anywhere, but for the eyes: they are 2 apart."""
    points = np.random.default_rng(0).uniform(-3, 3, (68, 2))
    for corners, x in zip(EYES, (-1.0, 1.0), strict=True):
        points[corners] = [[x - 0.3, 0.0], [x + 0.3, 0.0]]
    return points


def test_place_size_and_tilt_of_a_head_do_not_count() -> None:
    angle = 0.4
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert shape_distance(face(), 7 * face() @ turn + [120, -40]) == pytest.approx(0, abs=1e-9)


def test_a_smile_counts_in_distances_between_the_eyes_and_a_jaw_does_not() -> None:
    smiling, thinner = face(), face()
    smiling[CORNERS, 1] -= 0.2  # a tenth of the eyes' distance, on 2 of the landmarks
    assert shape_distance(face(), smiling) == pytest.approx(0.1 * np.sqrt(2 / len(MOVING)))
    assert shape_distance(smiling, face()) == pytest.approx(shape_distance(face(), smiling))
    thinner[:17, 0] *= 0.5
    assert shape_distance(face(), thinner) == 0


def test_it_needs_two_faces() -> None:
    expression = Expression(lambda picture: face() if picture.any() else None)
    found = expression(images(flat(1.0, 0.0)), images(flat(0.5, 0.5)))
    assert expression.measure == "expression distance"
    assert np.allclose(found, [0.0, np.nan], equal_nan=True)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ValueError, match=r"expression needs .*pip install 'spf-lite\[identity\]'"):
        Expression.load()


@pytest.mark.skipif(not INSTALLED, reason="needs the extra 'identity'")
def test_dlib_tells_a_smile_from_a_serious_face() -> None:
    smiling, serious = (render(Portrait(expression=mouth), 128) for mouth in ("smiling", "serious"))
    same, other = Expression.load()([smiling, smiling], [smiling, serious])
    assert same == 0 and other > 0.05
