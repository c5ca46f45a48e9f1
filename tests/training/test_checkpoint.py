import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.training.checkpoint import RunFolder

CONFIG = TrainConfig(stage1_steps=3, stage2_steps=0)


def test_what_was_saved_is_loaded_with_the_log_up_to_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, CONFIG)
    assert folder.load() is None
    for step in range(4):
        folder.log({"step": step})
        if step == 1:
            folder.save({"step": 2, "weights": torch.ones(3)})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # torn by a kill
    again = RunFolder(tmp_path, CONFIG).load()
    assert again is not None
    state, lines = again
    assert torch.equal(state["weights"], torch.ones(3)) and lines == [{"step": 0}, {"step": 1}]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [0, 1]
    folder.clear()
    assert folder.load() is None and not (tmp_path / "log.jsonl").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path, CONFIG)
    folder.save({"step": 1})

    def full(state: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise RuntimeError("[enforce fail at inline_container.cc] . file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the last one is kept"):
        folder.save({"step": 2})
    found = folder.load()
    assert found is not None and found[0]["step"] == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_a_full_disk_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000_000, 99_000_000, 1_000_000))
    RunFolder(tmp_path, CONFIG, size=400_000)
    with pytest.raises(OSError, match="1 MB are free, two checkpoints need 2 MB"):
        RunFolder(tmp_path, CONFIG, size=1_000_000)


def test_another_run_and_no_checkpoint_at_all_are_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG).save({"step": 1})
    with pytest.raises(ValueError, match="belongs to a run with another configuration"):
        RunFolder(tmp_path, replace(CONFIG, seed=1)).load()
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint of this version"):
        RunFolder(tmp_path, CONFIG).load()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    second = RunFolder(tmp_path / "run", CONFIG, writes=False)
    second.log({"step": 0})
    second.save({"step": 1})
    second.clear()
    assert not (tmp_path / "run").exists()
    RunFolder(tmp_path / "run", CONFIG).save({"step": 1})
    found = second.load()
    assert found is not None and found[0]["step"] == 1
