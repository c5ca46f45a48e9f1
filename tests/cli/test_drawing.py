"""Drawn portraits, custom sets and the tiny model's own training, called as from a shell."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.pretrain import run as pretraining
from spf_lite.tiny_world import custom_sets
from spf_lite.tiny_world.custom_sets import CAPTIONS, SetNote
from spf_lite.tiny_world.portraits import TARGETS

from .shell import pixels, refused, run


def test_render_draws_a_sheet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    assert run("render", path, "--count", 10, "--size", 32) == 0
    assert Image.open(path).size == (8 * 32, 2 * 32)
    for name, options in {"again": (), "seed": ("--seed", 1), "target": ("--target", "winter-hat")}.items():
        assert run("render", tmp_path / f"{name}.png", "--count", 10, "--size", 32, *options) == 0
    assert np.array_equal(pixels(path), pixels(tmp_path / "again.png"))
    assert not np.array_equal(pixels(path), pixels(tmp_path / "seed.png"))
    changed = (pixels(path) != pixels(tmp_path / "target.png")).any(axis=-1)
    for number in range(10):
        row, column = divmod(number, 8)
        head = changed[row * 32 : row * 32 + 16, column * 32 : (column + 1) * 32]
        assert head.any(), "everybody wears a hat"


def test_custom_writes_every_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(custom_sets.write_custom_set, count=2, size=32)
    monkeypatch.setattr(custom_sets, "write_custom_set", small)
    assert run("custom", "all", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(TARGETS)
    for target in TARGETS:
        for captions in CAPTIONS:
            assert len(CustomSet.load(tmp_path / target, captions)) == 2


def test_custom_writes_one_set_shipped_or_drawn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(custom_sets, "write_custom_set", partial(custom_sets.write_custom_set, count=2, size=32))
    for seed in (None, 0, 3):
        folder = tmp_path / "new" / str(seed)
        options = () if seed is None else ("--confounders", seed)
        assert run("custom", "beard", folder, *options) == 0
        assert logged.records[-1].message == f"wrote {folder}"
        assert SetNote.read(folder) == SetNote.of("beard", seed) and len(CustomSet.load(folder, "silent")) == 2
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for target in ("beard", "all"):
        assert "holds files already: choose another folder" in refused(capsys, "custom", target, folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    empty = tmp_path / "empty"
    for text in ("-1", "1.5", "x"):
        line = refused(capsys, "custom", "beard", empty, "--confounders", text)
        assert "--confounders" in line and "expected" in line
    assert "unknown target 'monocle'" in refused(capsys, "custom", "monocle", empty)
    assert not empty.exists(), "nothing was begun"


def test_pretrain_passes_on_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(pretraining, "pretrain", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(pretraining, "ship_all", lambda *arguments: asked.append(arguments))
    assert run("pretrain", "clip") == 0
    assert run("pretrain", "all", "--work", tmp_path, "--steps", 5, "--ship", tmp_path / "model") == 0
    assert asked == [
        ("clip", pretraining.default_work_folder(), None),
        ("all", tmp_path, 5),
        (tmp_path, tmp_path / "model"),
    ]
