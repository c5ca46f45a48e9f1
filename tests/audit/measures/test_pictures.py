"""Each measure sees the change that was planted, and only that one."""

import numpy as np
import pytest

from spf_lite.audit.measures.pictures import change_outside, edge_change, edges, pixel_change
from spf_lite.evaluation.measures.pictures import JITTER

from ..conftest import flat


def square(left: int, top: int, side: int = 4, value: float = 1.0) -> np.ndarray:
    """One black picture with a square."""
    picture = flat(0.0)
    picture[0, top : top + side, left : left + side] = value
    return picture


def test_equal_pictures_have_not_changed() -> None:
    picture = square(3, 3)
    everywhere = np.zeros((1, 16, 16), dtype=bool)
    assert pixel_change(picture, picture) == edge_change(picture, picture) == 0
    assert change_outside(picture, picture, everywhere) == 0


def test_the_mean_difference_of_pixels_is_that_of_the_planted_square() -> None:
    assert pixel_change(flat(0.0), square(0, 0, side=4, value=0.5)) == pytest.approx(0.5 * 16 / 256)
    assert np.allclose(pixel_change(flat(0.2, 0.4), flat(0.7, 0.4)), [0.5, 0.0]), "one number for each portrait"
    assert pixel_change(flat(0.5), flat(0.5 + JITTER / 2)) == 0, "jitter is no change"


def test_what_is_outside_and_what_is_inside_add_up() -> None:
    before, after = flat(0.0), np.maximum(square(0, 0), square(10, 10))
    region = np.zeros((1, 16, 16), dtype=bool)
    region[0, :8, :8] = True
    outside, inside = change_outside(before, after, region), change_outside(before, after, ~region)
    assert outside == pytest.approx(16 / 256) and outside + inside == pytest.approx(pixel_change(before, after))
    assert change_outside(before, square(1, 1), region) == 0


def test_a_moved_square_changes_edges_and_another_light_does_not() -> None:
    near, far = edge_change(square(2, 2), square(3, 2)), edge_change(square(2, 2), square(10, 10))
    assert 0 < near < far <= 1
    assert far == pytest.approx(1.0), "no edge coincides"
    brighter = square(2, 2, value=0.5)
    assert edge_change(brighter, brighter + 0.3) == pytest.approx(0.0, abs=1e-12), "one light more everywhere"
    assert edge_change(flat(0.1), flat(0.9)) == 0, "no edges at all"


def test_a_step_from_black_to_white_has_the_edge_that_the_docstring_says() -> None:
    step = flat(0.0)
    step[0, :, 8:] = 1.0
    found = edges(step)
    assert found.max() == pytest.approx(4.0) and set(np.flatnonzero(found[0].any(axis=0))) == {7, 8}
    assert np.array_equal(edges(np.concatenate([step, flat(0.0)]))[0], found[0]), "portraits do not touch each other"
    faint = flat(0.5)
    faint[0, :, 8:] += JITTER
    assert not edges(faint).any()


@pytest.mark.parametrize("measure", [pixel_change, edge_change])
def test_pictures_of_other_sizes_are_refused(measure: object) -> None:
    with pytest.raises(ValueError, match="compared in pairs"):
        measure(flat(0.0), flat(0.0, size=8))  # type: ignore[operator]
