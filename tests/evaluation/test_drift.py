"""Drift by word: planted drift is found, chance is not, and shipped rows can be read."""

from random import Random

import numpy as np
import pytest
import torch

from spf_lite.evaluation.drift import FEWEST, drift_by_word, drifted_words, in_words, words_of
from spf_lite.evaluation.measures.pictures import reconstruction_error, to_array
from spf_lite.evaluation.report import PollutionReport
from spf_lite.evaluation.rows import ROW_FILE, Row
from spf_lite.evaluation.statistics import holm
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample
from spf_lite.paths import DATA_SAMPLES
from spf_lite.tiny_world.custom_sets import evaluation_portraits
from spf_lite.tiny_world.portraits import describe, random_portrait


def texts(count: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return [describe(random_portrait(rng)) for _ in range(count)]


def test_planted_drift_comes_first_and_stands() -> None:
    some = texts(256)
    rng = np.random.default_rng(0)
    moved = 0.1 + rng.normal(0, 0.01, 256)
    moved += np.array([0.05 * ("hoodie" in text) + 0.02 * ("smiling" in text) for text in some])
    found = drift_by_word(some, moved)
    assert list(found)[:2] == ["hoodie", "smiling"]
    assert {word for word in holm(found) if found[word].mean > 0} == {"hoodie", "smiling"}
    assert found["hoodie"].low < 0.05 < found["hoodie"].high
    assert in_words(found, 2) == f"hoodie {found['hoodie'].mean:+.3f} *, smiling {found['smiling'].mean:+.3f} *"
    assert in_words({}) == "too few prompts to say"
    assert [estimate.mean for estimate in found.values()] == sorted((e.mean for e in found.values()), reverse=True)


def test_chance_seldom_stands_and_intervals_cover() -> None:
    rng = np.random.default_rng(1)
    false, covered = 0, []
    for trial in range(100):
        found = drift_by_word(texts(64, trial), rng.gamma(2.0, 0.05, 64))
        false += bool(holm(found))
        covered += [estimate.low <= 0 <= estimate.high for estimate in found.values()]
    assert false <= 15, "5 of 100 are meant; skewed movements make a few more"
    assert 0.92 < np.mean(covered) < 0.98


def test_what_moves_everything_alike_is_no_words_drift() -> None:
    found = drift_by_word(texts(40), np.full(40, 0.3))
    assert found and all(estimate.mean == 0 and estimate.p_value == 1 for estimate in found.values())


def test_several_runs_are_averaged() -> None:
    some, rng = texts(30), np.random.default_rng(2)
    runs = rng.random((3, 30))
    assert drift_by_word(some, runs) == drift_by_word(some, runs.mean(axis=0))


def test_words_that_are_everywhere_or_nearly_nowhere_are_left_out() -> None:
    some = ["a person, sad", "a person, sad", "a person, sad", "a person, smiling", "a person", "a person, Shouting"]
    assert FEWEST == 3 and list(drift_by_word(some, [1, 2, 3, 4, 5, 6])) == ["sad"]
    assert words_of("A person, v-neck, Blue background") == {"a", "person", "v-neck", "blue", "background"}


def test_a_word_whose_embedding_was_changed_is_found(toy: Backbone) -> None:
    """Planted in a model: one word reads as something else, and the noise stays the same."""
    some = [describe(person) for person in evaluation_portraits("beard", 48)]
    before = sample(toy, some, seeds=range(48), steps=2)
    (token,) = toy.pipe.tokenizer("overalls", add_special_tokens=False).input_ids
    with torch.no_grad():
        weight = toy.pipe.text_encoder.get_input_embeddings().weight
        weight[token] = 30 * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0))
    after = sample(toy, some, seeds=range(48), steps=2)
    found = drift_by_word(some, reconstruction_error(to_array(before), to_array(after)))
    assert next(iter(found)) == "overalls" and "overalls" in holm(found)


def test_the_words_of_shipped_rows() -> None:
    folder = DATA_SAMPLES / "results" / "sunglasses"
    for method, stands in (("naive", True), ("spf", False)):
        rows = [Row.from_json((folder / f"{method}-{seed}" / ROW_FILE).read_text()) for seed in (0, 1, 2)]
        found = drifted_words([row.report for row in rows])
        assert {"yellow", "smiling", "hoodie", "black"} <= set(found)
        assert all(estimate.count == 64 for estimate in found.values())
        assert bool(holm(found)) == stands, "naive fine-tuning pollutes some words more than others"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"movements of shape \(2,\) for 3 texts"):
        drift_by_word(texts(3), [0.1, 0.2])
    with pytest.raises(ValueError, match="not finite"):
        drift_by_word(texts(3), [0.1, 0.2, np.nan])
    with pytest.raises(ValueError, match="not of none"):
        drifted_words([])
    with pytest.raises(ValueError, match="not of beard, blazer"):
        drifted_words([PollutionReport(target, {}, {}, {}) for target in ("beard", "blazer")])
    with pytest.raises(ValueError, match="needs the measure 'reconstruction'"):
        drifted_words([PollutionReport("beard", {"pure": [1.0]}, {}, {})])
