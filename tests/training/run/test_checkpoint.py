import errno
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.training.run.checkpoint import RunFolder, RunFolderError
from spf_lite.training.run.identity import RunIdentity

CONFIG = TrainConfig(stage1_steps=3, stage2_steps=0)
RUN = RunIdentity(CONFIG, "sunglasses", "1" * 64, "2" * 64, "3" * 64, "4" * 64, None, "float32")
OTHER = replace(RUN, config=replace(CONFIG, seed=1), captions="5" * 64)
LONGER = replace(RUN, config=replace(CONFIG, stage1_steps=5))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_run(path: Path, identity: RunIdentity = RUN, steps: int = 2) -> RunFolder:
    """A run of some steps with a checkpoint, and an adapter."""
    folder = RunFolder(path, identity)
    folder.check()
    with folder.in_use():
        folder.begin()
        for step in range(steps):
            folder.log({"step": step})
        folder.save({"step": steps, "weights": torch.ones(3)}, [{"step": step} for step in range(steps)])
    (path / "adapter").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "README.md"):
        (path / "adapter" / name).write_text("old")
    return folder


def test_what_was_saved_is_loaded_with_the_log_up_to_it(tmp_path: Path) -> None:
    write_run(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 2}\n{"step": 3, "lo')  # partially written
    again = RunFolder(tmp_path, RUN)
    again.check(resume=True)
    found = again.load()
    assert found is not None
    assert torch.equal(found[0]["weights"], torch.ones(3)) and found[1] == [{"step": 0}, {"step": 1}]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [0, 1]
    assert RunIdentity.from_json((tmp_path / "run.json").read_text()) == RUN
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("damage", ["gone", "torn", "binary"])
def test_a_lost_log_comes_back_from_the_checkpoint(tmp_path: Path, damage: str) -> None:
    write_run(tmp_path)
    log = tmp_path / "log.jsonl"
    before = log.read_bytes()
    log.unlink()
    if damage != "gone":
        log.write_bytes(before[:7] if damage == "torn" else b"\xff\x00")
    folder = RunFolder(tmp_path, RUN)
    folder.check(resume=True)
    assert folder.load() is not None and log.read_bytes() == before


def test_making_the_object_and_every_refusal_change_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new", RUN).check()
    assert not (tmp_path / "new").exists()
    write_run(tmp_path)
    before = contents(tmp_path)
    for identity, options, message in (
        (RUN, {}, r"holds a run: go on with resume=True \(--resume\), begin anew with overwrite=True"),
        (OTHER, {"resume": True}, r"differs in captions \(222222222222 there, 555555555555 here\), seed \(0 there, 1"),
        (LONGER, {"resume": True}, r"stage1_steps \(3 there, 5 here\): go on with extend=True"),
        (OTHER, {"extend": True}, "cannot be extended: only the number of steps may grow"),
        (RUN, {"resume": True, "overwrite": True}, "choose one"),
    ):
        with pytest.raises(RunFolderError, match=message):
            RunFolder(tmp_path, identity).check(**options)
    assert contents(tmp_path) == before


def test_a_run_without_a_checkpoint_is_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    with folder.in_use():
        folder.begin()
    with pytest.raises(RunFolderError, match="holds a run"):
        folder.check()
    with pytest.raises(RunFolderError, match="differs in captions"):
        RunFolder(tmp_path, OTHER).check(resume=True)
    folder.check(resume=True)
    assert folder.load() is None
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunFolderError, match="no run that this version can go on with"):
        folder.check(resume=True)


def test_overwriting_keeps_everything_old_until_the_first_checkpoint(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "adapter" / "notes.txt").write_text("the user's own")
    before = contents(tmp_path)
    new = RunFolder(tmp_path, OTHER)
    new.check(overwrite=True)
    with new.in_use():
        new.begin(overwrite=True)
        new.log({"step": 0, "new": True})
        kept = contents(tmp_path)
        assert json.loads(kept.pop("log.new.jsonl")) == {"step": 0, "new": True}
        assert kept == before
        new.save({"step": 1}, [{"step": 0, "new": True}])
        new.log({"step": 1, "new": True})
    after = contents(tmp_path)
    assert set(after) - {"run.lock"} == {
        "checkpoint.pt", "config.json", "run.json", "log.jsonl", "adapter/notes.txt"
    }, "the old adapter is gone, and only that"  # fmt: skip
    assert [json.loads(line)["new"] for line in after["log.jsonl"].splitlines()] == [True, True]
    RunFolder(tmp_path, OTHER).check(resume=True)


def test_a_kill_right_after_the_first_checkpoint_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    new = RunFolder(tmp_path, OTHER)
    with monkeypatch.context() as killed, new.in_use():
        killed.setattr(RunFolder, "_settle", lambda self, log: None)
        new.begin(overwrite=True)
        new.save({"step": 1}, [{"step": 0, "new": True}])
    again = RunFolder(tmp_path, OTHER)
    again.check(resume=True)
    again.begin()
    found = again.load()
    assert found is not None and found[1] == [{"step": 0, "new": True}]
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 0, "new": True}
    assert RunIdentity.from_json((tmp_path / "run.json").read_text()) == OTHER
    assert not (tmp_path / "adapter").exists()


def test_an_extended_run_keeps_its_files_and_takes_its_new_name_with_its_first_checkpoint(tmp_path: Path) -> None:
    write_run(tmp_path)
    longer = RunFolder(tmp_path, LONGER)
    longer.check(extend=True)
    with longer.in_use():
        longer.begin()
        found = longer.load()
        assert found is not None and found[0]["step"] == 2
        assert RunIdentity.from_json((tmp_path / "run.json").read_text()) == RUN
        longer.save({"step": 3}, [*found[1], {"step": 2}])
    assert RunIdentity.from_json((tmp_path / "run.json").read_text()) == LONGER
    assert (tmp_path / "adapter" / "README.md").is_file()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path)
    before = contents(tmp_path)

    def full(state: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise RuntimeError("[enforce fail at inline_container.cc] . file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint.pt: cannot be written, what was there before is kept"):
        folder.save({"step": 3}, [{"step": step} for step in range(3)])
    assert contents(tmp_path) == before


def test_what_a_kill_leaves_half_written_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path)
    for name in ("checkpoint.pt.123.tmp", "mine.tmp"):
        (tmp_path / name).write_text("half")
    folder = RunFolder(tmp_path, RUN)
    with folder.in_use():
        folder.begin()
    assert not (tmp_path / "checkpoint.pt.123.tmp").exists() and (tmp_path / "mine.tmp").exists()


def test_a_full_disk_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000_000, 99_000_000, 1_000_000))
    RunFolder(tmp_path / "new", RUN, size=400_000)
    with pytest.raises(OSError, match="1 MB are free, two checkpoints need 2 MB"):
        RunFolder(tmp_path / "new", RUN, size=1_000_000)


def test_a_folder_that_cannot_be_written_is_reported_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"{tmp_path / 'file'}: is no folder that can be written"):
        RunFolder(tmp_path / "file", RUN)


@pytest.mark.parametrize("size", [0, 1, 100, -1, None])
def test_a_torn_checkpoint_is_named_and_left_alone(tmp_path: Path, size: int | None) -> None:
    write_run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"something else" if size is None else path.read_bytes()[:size])
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match="checkpoint.pt is incomplete or not a checkpoint of this version"):
        RunFolder(tmp_path, RUN).check(resume=True)
    assert contents(tmp_path) == before
    RunFolder(tmp_path, RUN).check(overwrite=True)


def test_a_log_that_cannot_be_written_names_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path)

    def full(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"log.jsonl: cannot be written \(No space left on device\)"):
        folder.log({"step": 2})


def test_two_runs_do_not_train_in_one_folder(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path, RUN), RunFolder(tmp_path, RUN)
    another = pytest.raises(RunFolderError, match="another run is training in this folder")
    with first.in_use(), another, second.in_use():
        pytest.fail("it got in")
    with second.in_use():
        assert (tmp_path / "run.lock").exists()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    second = RunFolder(tmp_path / "run", RUN, writes=False)
    with second.in_use():
        second.begin()
        second.log({"step": 0})
        second.save({"step": 1}, [{"step": 0}])
        assert second.load() is None and not (tmp_path / "run").exists()
    write_run(tmp_path / "run")
    before = contents(tmp_path)
    found = second.load()
    assert found is not None and found[0]["step"] == 2 and contents(tmp_path) == before
