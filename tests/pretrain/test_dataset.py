import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spf_lite.pretrain import dataset
from spf_lite.pretrain.dataset import SPLITS, load_split, portraits_of
from spf_lite.tiny_world.portraits import FINAL_TARGETS, TARGETS
from spf_lite.tiny_world.rendering import part_mask, render


def test_a_chunk_is_known_by_its_name() -> None:
    assert portraits_of("mixed", 3) == portraits_of("mixed", 3)
    people = [tuple(portraits_of(split, chunk)[:20]) for split in SPLITS for chunk in (0, 1)]
    assert len(set(people)) == len(people), "no two chunks are the same people"


def test_the_base_split_never_shows_a_target_and_the_others_show_all() -> None:
    assert all(not portrait.targets for portrait in portraits_of("base", 0))
    for split in ("mixed", "held-out"):
        shown = [portrait.targets for portrait in portraits_of(split, 0)]
        assert {target for targets in shown for target in targets} == set(TARGETS)
        assert 0.55 < np.mean([bool(targets) for targets in shown]) < 0.65


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 2)
    monkeypatch.setattr(dataset, "SPLITS", {"base": 2, "mixed": 1, "held-out": 1})


def test_what_is_rendered_is_read_back(small: None, tmp_path: Path) -> None:
    for split, count in dataset.SPLITS.items():
        for chunk in range(count):
            dataset._render_chunk((split, chunk), tmp_path, 64)
    assert {path.name for path in tmp_path.iterdir()} == {
        "base-000.npz",
        "base-001.npz",
        "mixed-000.npz",
        "held-out-000.npz",
    }
    base, mixed = load_split(tmp_path, "base"), load_split(tmp_path, "mixed")
    assert base.images.shape == (4, 64, 64, 3) and base.masks is None and len(base.portraits) == 4
    assert len(load_split(tmp_path, "base", 1).portraits) == 2
    assert mixed.masks is not None
    for number, portrait in enumerate(mixed.portraits):
        assert np.array_equal(mixed.images[number], np.asarray(render(portrait, 64)))
        assert np.array_equal(mixed.masks[number], part_mask(portrait, dataset.MASK_SIZE))


def test_what_is_there_is_not_rendered_again(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("base-000", "base-001", "mixed-000", "held-out-000"):
        (tmp_path / f"{name}.npz").write_bytes(b"rendered")

    def forbidden(*arguments: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(multiprocessing, "get_context", forbidden)
    monkeypatch.setattr(dataset, "render", forbidden)
    dataset.build(tmp_path)
    dataset._render_chunk(("base", 0), tmp_path, 64)
    assert (tmp_path / "base-000.npz").read_bytes() == b"rendered"
    (tmp_path / "base-001.npz").unlink()
    with pytest.raises(AssertionError, match="rendered again"):
        dataset.build(tmp_path)


def test_the_last_test_has_portraits_of_all_targets_and_the_others_are_what_they_were() -> None:
    shown = {name: Counter(t for p in portraits_of(name, 0) for t in p.targets) for name in ("mixed", "final")}
    assert set(shown["mixed"]) == set(TARGETS)
    assert set(shown["final"]) == {*TARGETS, *FINAL_TARGETS} and min(shown["final"].values()) > 30
