"""A run is one run: what may begin, go on, be extended or overwritten in a folder, and what may not."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.errors import BackboneError
from spf_lite.training import step
from spf_lite.training.run.checkpoint import RunFolderError
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy
from .conftest import CONFIG, NAIVE, Run, Stopped, contents, fail_at, same, stop_at

Make = Callable[..., DualPathTrainer]


def test_another_run_is_refused_by_what_differs_and_nothing_changes(
    run: Run, make: Make, custom_set: CustomSet, tmp_path: Path
) -> None:
    run(tmp_path, NAIVE)
    before = contents(tmp_path)
    first, *rest = custom_set.examples
    touched = first.image.copy()
    touched.putpixel((0, 0), (1, 2, 3))
    texts = replace(custom_set, examples=(replace(first, base_text="a person, red hair"), *rest))
    pixels = replace(custom_set, examples=(replace(first, image=touched), *rest))
    for trainer, names in (
        (make(tmp_path, replace(NAIVE, learning_rate=0.5)), r"learning_rate \(0.05 there, 0.5 here\)"),
        (make(tmp_path, NAIVE, custom_set=pixels), r"portraits \(\w{12} there, \w{12} here\)"),
        (make(tmp_path, NAIVE, custom_set=texts), r"captions \(.*\), reference_texts \(.*\)"),
        (make(tmp_path, NAIVE, reference_texts=[("a person", None)]), r"reference_texts \(.*\)"),
        (make(tmp_path, NAIVE, initial_adapter=tmp_path / "adapter"), r"initial_adapter \(None there, \w{12} here\)"),
    ):
        with pytest.raises(RunFolderError, match=rf"{tmp_path} belongs to another run, which differs in {names}: "):
            trainer.fit(resume=True, progress=False)
        assert contents(tmp_path) == before


def test_the_same_weights_elsewhere_on_the_disk_are_the_same_model(
    make: Make, toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    make(tmp_path / "run", NAIVE).fit(progress=False)
    shutil.copytree(toy_folders["v_prediction"], tmp_path / "moved")
    backbone = load_toy(tmp_path / "moved")
    DualPathTrainer(backbone, custom_set, NAIVE, tmp_path / "run").fit(resume=True, progress=False)
    other = load_toy(tmp_path / "moved")
    with torch.no_grad():
        other.pipe.unet.conv_in.bias[0] += 1
    with pytest.raises(RunFolderError, match="differs in base_model"):
        DualPathTrainer(other, custom_set, NAIVE, tmp_path / "run").fit(resume=True)


def test_a_folder_with_a_run_is_not_begun_in_again_unasked(run: Run, make: Make, tmp_path: Path) -> None:
    run(tmp_path, NAIVE)
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match=f"{tmp_path} holds a run: go on with resume=True"):
        make(tmp_path, NAIVE).fit(progress=False)
    assert contents(tmp_path) == before


def test_overwriting_removes_old_results_only_when_new_ones_exist(run: Run, make: Make, tmp_path: Path) -> None:
    run(tmp_path, NAIVE)
    before = contents(tmp_path)
    new = replace(NAIVE, seed=1, checkpoint_every=2)
    trainer = make(tmp_path, new)
    with pytest.raises(Stopped):
        trainer.fit(overwrite=True, on_step=stop_at(0), progress=False)
    kept = contents(tmp_path)
    assert kept.pop("log.new.jsonl") and kept == before, "before the new run's first checkpoint"
    trainer.fit(progress=False)  # the same trainer goes on as it began
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "log.new.jsonl").exists()
    fresh = make(tmp_path / "fresh", new)
    fresh.fit(progress=False)
    assert same(trainer.trained.state(), fresh.trained.state())
    for name in ("log.jsonl", "run.json", "config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_run_that_overwrites_and_comes_to_nothing_leaves_the_old_one(
    run: Run, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when stage 2 begins at once, and its preparations would be saved."""
    run(tmp_path, NAIVE)
    before = contents(tmp_path)
    dual = replace(CONFIG, stage1_steps=0, scale_terms=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(step, "objective", 1, KeyboardInterrupt(), patch)
        make(tmp_path, dual).fit(overwrite=True, progress=False)
    assert contents(tmp_path) == before


def test_a_finished_trainer_says_so_and_deletes_nothing(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trainer = make(tmp_path, NAIVE)
    result = trainer.fit(progress=False)
    before = contents(tmp_path)
    for again in (trainer, make(tmp_path, NAIVE)):
        caplog.clear()
        assert again.fit(resume=True, progress=False).history == result.history
        assert "all 2 steps are made: there is nothing left to do" in caplog.messages
        assert contents(tmp_path) == before
    assert trainer.fit(progress=False).history == result.history, "also without resume"
    in_memory = make(None, NAIVE)
    assert in_memory.fit(progress=False).history == in_memory.fit(progress=False).history


# -- longer, and from an adapter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (NAIVE, replace(NAIVE, stage1_steps=4)),
        (CONFIG, replace(CONFIG, stage2_steps=4)),
        (replace(CONFIG, stage2_steps=0), CONFIG),
    ],
    ids=["stage 1", "stage 2", "a stage 2 is added"],
)
def test_an_extended_run_ends_like_one_that_was_planned_so_long(
    short: TrainConfig, long: TrainConfig, run: Run, make: Make, tmp_path: Path
) -> None:
    run(tmp_path / "run", short)
    before = contents(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"_steps \(\d there, \d here\): go on with extend=True \(--extend\)"):
        make(tmp_path / "run", long).fit(resume=True)
    assert contents(tmp_path / "run") == before
    _, extended = run(tmp_path / "run", long, extend=True)
    _, planned = run(tmp_path / "planned", long)
    assert same(extended, planned)
    for name in ("log.jsonl", "run.json", f"adapter/{ADAPTER_FILE}"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "planned" / name).read_bytes()


def test_what_is_no_extension_is_refused(run: Run, make: Make, tmp_path: Path) -> None:
    run(tmp_path, NAIVE)
    before = contents(tmp_path)
    for config, reason in (
        (replace(NAIVE, stage1_steps=1), "1 . 0 steps are not more than its 2 . 0"),
        (replace(NAIVE, stage1_steps=4, seed=3), r"only the number of steps may grow, and more differs: seed \(0 th"),
    ):
        with pytest.raises(RunFolderError, match=f"cannot be extended: {reason}"):
            make(tmp_path, config).fit(extend=True)
        assert contents(tmp_path) == before


def test_training_starts_from_an_adapter(run: Run, make: Make, tmp_path: Path) -> None:
    _, weights = run(tmp_path / "first", NAIVE)
    started = make(tmp_path / "second", NAIVE, initial_adapter=tmp_path / "first" / "adapter")
    assert same(started.trained.state(), weights)
    started.fit(progress=False)
    assert not same(started.trained.state(), weights)
    make(tmp_path / "second", NAIVE, initial_adapter=tmp_path / "first" / "adapter" / ADAPTER_FILE).fit(resume=True)
    with pytest.raises(RunFolderError, match="initial_adapter"):
        make(tmp_path / "second", NAIVE).fit(resume=True)
    with pytest.raises(BackboneError, match="its rank is 2, and 1 is trained: set rank=2"):
        make(None, replace(NAIVE, rank=1), initial_adapter=tmp_path / "first" / "adapter")
    with pytest.raises(BackboneError, match="adalora cannot start from"):
        make(None, replace(NAIVE, trainable="adalora"), initial_adapter=tmp_path / "first" / "adapter")


# -- two at once, and the clock ----------------------------------------------------------------------------------------


def test_two_runs_in_one_folder_at_once_are_one_too_many(make: Make, tmp_path: Path) -> None:
    alone = make(tmp_path / "alone", NAIVE)
    alone.fit(progress=False)
    messages: list[str] = []

    def meanwhile(step: int, control: object) -> None:
        with pytest.raises(RunFolderError) as refused:
            make(tmp_path / "run", NAIVE).fit(resume=True, progress=False)
        messages.append(str(refused.value))

    first = make(tmp_path / "run", NAIVE)
    first.fit(on_step=meanwhile, progress=False)
    assert messages == [f"{tmp_path / 'run'}: another run is training in this folder; choose another"] * 2
    assert same(first.trained.state(), alone.trained.state())
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == (tmp_path / "alone" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(
    jump: float, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(tmp_path / "plain", NAIVE)
    plain.fit(progress=False)
    real, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return real() + jump * (calls[0] % 2)

    monkeypatch.setattr(time, "time", jumping)
    jumped = make(tmp_path / "jumped", NAIVE)
    with pytest.raises(Stopped):
        jumped.fit(on_step=stop_at(0), progress=False)
    for path in (tmp_path / "jumped").iterdir():
        os.utime(path, (max(0, real() + jump), max(0, real() + jump)))
    again = make(tmp_path / "jumped", NAIVE)
    result = again.fit(resume=True, progress=False)
    assert same(again.trained.state(), plain.trained.state()) and 0 <= result.cpu_seconds < 600
