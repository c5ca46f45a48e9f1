"""Planted pollution of known size: each measure rises with it, and answers to its own cause only."""

from collections.abc import Callable

import numpy as np
import pytest

from spf_lite.evaluation.measures import pictures
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import PARTS, counterfactual, part_mask, true_region

PEOPLE = [Portrait(skin=skin, background="gray") for skin in ("pale", "tan", "brown", "dark")]
TARGET = "sunglasses"
SIZE = 64
REGION = np.stack([true_region(person, TARGET, SIZE) for person in PEOPLE])
X, Y = (pictures.to_array([counterfactual(person, TARGET, SIZE)[side] for person in PEOPLE]) for side in (0, 1))
NEEDED = pictures.change(X, Y)
DOSES = (0.0, 0.25, 0.5, 1.0)


def polluted(dose: float) -> np.ndarray:
    """The target, and a share of the places outside its region painted over."""
    picture = Y.copy()
    for i, inside in enumerate(REGION):
        rows, columns = np.nonzero(~inside)
        count = round(dose * len(rows))
        picture[i, rows[:count], columns[:count]] = 1 - picture[i, rows[:count], columns[:count]]
    return picture


def weakened(dose: float) -> np.ndarray:
    """The target, faded by a share."""
    return X + (1 - dose) * (Y - X)


def rises(measure: Callable[[float], float]) -> bool:
    values = [measure(dose) for dose in DOSES]
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def test_leakage_is_the_share_outside_the_region() -> None:
    assert pictures.leakage(X, Y, REGION).tolist() == [0] * 4, "the target alone"
    assert pictures.leakage(X, X, REGION).tolist() == [0] * 4, "nothing changed"
    assert rises(lambda dose: pictures.leakage(X, polluted(dose), REGION).mean())
    only_outside = np.where(REGION[..., None], X, 1 - X)
    assert pictures.leakage(X, only_outside, REGION).tolist() == [1] * 4
    assert pictures.leakage(X, weakened(0.5), REGION).tolist() == [0] * 4, "blind to a faded target"
    half = X.copy()
    half[0, 0, 0] += 0.5 * (1 if X[0, 0, 0, 0] < 0.5 else -1)
    inside = np.argwhere(REGION[0])[0]
    half[0, inside[0], inside[1]] += 0.5 * (1 if X[0, inside[0], inside[1], 0] < 0.5 else -1)
    assert pictures.leakage(X[:1], half[:1].clip(0, 1), REGION[:1])[0] == pytest.approx(0.5, abs=0.2)
    assert np.isnan(pictures.leakage(X, Y, np.ones_like(REGION))).all(), "a style has no outside"


def test_over_alignment_is_what_did_not_happen() -> None:
    for dose in DOSES:
        assert pictures.over_alignment(X, weakened(dose), NEEDED, REGION).mean() == pytest.approx(dose, abs=0.05)
    assert pictures.over_alignment(X, polluted(0.5), NEEDED, REGION).tolist() == [0] * 4, "blind to pollution elsewhere"


def test_reconstruction_sees_any_change_and_no_jitter() -> None:
    assert rises(lambda dose: pictures.reconstruction_error(X, X + dose * (Y - X)).mean())
    assert rises(lambda dose: pictures.reconstruction_error(Y, polluted(dose)).mean())
    jitter = np.random.default_rng(0).uniform(-1, 1, X.shape) * pictures.JITTER
    assert pictures.reconstruction_error(X, X + jitter).max() == 0


def test_segmentation_consistency_answers_to_shape_outside_the_region_alone() -> None:
    def parts(**changes: str) -> np.ndarray:
        return np.stack([part_mask(Portrait(skin=p.skin, **changes), SIZE) for p in PEOPLE])  # type: ignore[arg-type]

    def score(after: np.ndarray) -> float:
        return float(pictures.segmentation_consistency(parts(), after, REGION, len(PARTS)).mean())

    assert score(parts()) == 1
    assert score(parts(clothes_color="red", background="yellow")) == 1, "blind to colours"
    moved = [np.where(np.arange(SIZE)[None, :, None] < round(dose * 40), 0, parts()) for dose in DOSES]
    scores = [score(after) for after in moved]
    assert scores[0] == 1 and all(a > b for a, b in zip(scores, scores[1:], strict=False))
    assert score(np.where(REGION, 0, parts())) == 1, "blind to what happens inside"
    everywhere = np.ones_like(REGION)
    assert np.isnan(pictures.segmentation_consistency(parts(), parts(), everywhere, len(PARTS))).all()


def test_similarity_is_the_cosine() -> None:
    first, second = np.eye(3)[:2], np.array([[2.0, 0, 0], [1.0, 1, 0]])
    assert pictures.similarity(first, second).tolist() == pytest.approx([1, 0.5**0.5])
    assert pictures.similarity(first, np.zeros((2, 3))).tolist() == [0, 0]
    for angle in (0.1, 0.5, 1.0):
        turned = np.array([[np.cos(angle), np.sin(angle), 0]])
        assert pictures.similarity(first[:1], turned)[0] == pytest.approx(np.cos(angle))


def test_pictures_are_compared_in_pairs() -> None:
    with pytest.raises(ValueError, match="compared in pairs"):
        pictures.change(X, Y[:2])
