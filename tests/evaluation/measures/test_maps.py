import numpy as np
import pytest

from spf_lite.evaluation.measures.maps import map_auc


def test_the_share_of_pairs_in_the_right_order() -> None:
    region = np.array([[1, 1], [0, 0]])
    assert map_auc([[0.9, 0.8], [0.1, 0.2]], region) == 1
    assert map_auc([[0.1, 0.2], [0.9, 0.8]], region) == 0
    assert map_auc([[0.9, 0.1], [0.5, 0.1]], region) == (2 + 0 + 0.5) / 4
    assert map_auc(np.ones((2, 2)), region) == 0.5
    rng = np.random.default_rng(0)
    values, inside = rng.integers(0, 9, (8, 8)), rng.random((8, 8)) < 0.3
    pairs = np.subtract.outer(values[inside], values[~inside])
    assert map_auc(values, inside) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_without_an_inside_or_an_outside_there_is_none() -> None:
    assert np.isnan(map_auc([0.5, 1], [0, 0])) and np.isnan(map_auc([0.5, 1], [1, 1]))
    with pytest.raises(ValueError, match=r"a map of shape \(2,\) for a region of shape \(3,\)"):
        map_auc([0, 1], [0, 1, 1])
