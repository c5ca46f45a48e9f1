"""Every fault at every stage: a named error, nothing lost, and the resumed run ends with the same weights."""

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spf_lite.data import encoding
from spf_lite.method import paths
from spf_lite.method.paths import PathOutput
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.running.sampling import sample as real_sample
from spf_lite.training import stage2
from spf_lite.training.loss_meter import TrainingDivergedError
from spf_lite.training.run import checkpoint
from spf_lite.training.scales import term_scales
from spf_lite.training.trainer import DualPathTrainer

from .conftest import CONFIG, STAGES, Run, contents, fail_at, same

FAILURES: dict[str, Callable[[], BaseException]] = {
    "kill": SystemExit,  # nothing of ours catches it, as nothing catches a kill
    "interrupt": KeyboardInterrupt,
    "full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "out of memory": MemoryError,
}


Whole = tuple[Path, dict[str, Tensor]]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_fails_at_a_stage_is_taken_up_there(
    stage: str, failure: str, run: Run, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, call = STAGES[stage]
    error = FAILURES[failure]()
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        fail_at(module, name, call, error, patch)
        run(tmp_path / "parts")
    kept = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["state"]["step"]
    assert kept == {"stage 1": 1, "stage 2": 3, "export": 4, "model card": 4}.get(stage, 2), "no step is lost"
    assert not (tmp_path / "parts" / "adapter" / ADAPTER_FILE).exists(), "where the weights are, the adapter is whole"
    assert same(run(tmp_path / "parts")[1], whole[1])
    for path in ("log.jsonl", "run.json", *(f"adapter/{file}" for file in (ADAPTER_FILE, "README.md", "config.json"))):
        assert (tmp_path / "parts" / path).read_bytes() == (whole[0] / path).read_bytes(), path


def test_every_write_may_meet_a_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that forces a file to the disk fails once: the error names a file, and the next attempt goes on."""
    config = replace(CONFIG, stage1_steps=1, stage2_steps=1, reference_portraits=0, map_source="none")
    _, weights = run(tmp_path / "whole", config)
    failed: list[str] = []
    for number in itertools.count(1):
        folder = tmp_path / f"full-{number}"
        with monkeypatch.context() as patch:
            fail_at(os, "fsync", number, OSError(errno.ENOSPC, "No space left on device"), patch)
            try:
                run(folder, config)
                break
            except OSError as error:
                assert str(folder) in str(error) and error.errno == errno.ENOSPC
                failed.append(str(error).split(str(folder))[1].split(":")[0])
        assert not list(folder.rglob("*.tmp")), "nothing half written is left"
        assert same(run(folder, config)[1], weights)
    expected = {"/config.json", "/run.json", "/checkpoint.pt"}
    assert expected <= set(failed) and any(name.startswith("/adapter/") for name in failed)
    assert failed.count("/checkpoint.pt") >= config.steps


def test_the_log_may_meet_a_full_disk(run: Run, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(checkpoint, "append_text", 3, OSError(errno.ENOSPC, "No space left on device"), patch)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "parts")
    assert same(run(tmp_path / "parts")[1], whole[1])


def test_a_trainer_whose_last_checkpoint_failed_writes_it_when_asked_again(
    make: Callable[..., DualPathTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, replace(CONFIG, checkpoint_every=100, stage2_steps=0))
    with monkeypatch.context() as patch, pytest.raises(OSError):
        fail_at(checkpoint, "replacing", 1, OSError(errno.ENOSPC, "No space left on device"), patch)
        trainer.fit(progress=False)
    assert not (tmp_path / "checkpoint.pt").exists()
    trainer.fit(progress=False)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["step"] == 2


@pytest.mark.parametrize("place", ["open", "mkdir"])
def test_a_folder_that_becomes_read_only_is_named(
    place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "open":
        run(tmp_path / "run", replace(CONFIG, stage2_steps=0))
    before = contents(tmp_path)
    real = getattr(Path, place)

    def refuse(path: Path, *arguments: Any, **options: Any) -> object:
        if tmp_path in path.parents and (place == "mkdir" or "w" in arguments[0] or "a" in arguments[0]):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=str(tmp_path)) as caught:
        patch.setattr(Path, place, refuse)
        run(tmp_path / "run", replace(CONFIG, stage2_steps=0))
    assert caught.value.errno == errno.EACCES
    assert contents(tmp_path) == before


def test_a_read_only_folder_is_named_before_training(
    make: Callable[..., DualPathTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OSError, match=f"{tmp_path / 'run'}: is no folder that can be written"):
        make(tmp_path / "run")


# -- not a number ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(4))
def test_weights_that_are_not_finite_are_never_saved(
    after: int, make: Callable[..., DualPathTrainer], tmp_path: Path
) -> None:
    trainer = make(tmp_path)

    def poison(number: int, control: object) -> None:
        if number == after:
            with torch.no_grad():
                trainer.parameters[0].fill_(float("nan"))

    with pytest.raises(TrainingDivergedError, match=rf"before step {after + 1}: .*lora_A.weight is not finite"):
        trainer.fit(on_step=poison, progress=False)
    if after:
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
        assert state["step"] == after and all(value.isfinite().all() for value in state["trained"].values())
    else:
        assert not (tmp_path / "checkpoint.pt").exists()


def nan_like(sampled: Tensor) -> Tensor:
    sampled[1, 0, 0, 0] = float("nan")
    return sampled


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("sampling reference portraits", "sampling reference portraits: portrait 1 is not finite"),
        ("making maps", "averaged maps: a prediction at t = .* is not finite"),
        ("scaling terms", "step 2: .* is nan at t ="),
    ],
)
def test_what_is_not_finite_between_the_stages_is_named_and_costs_nothing(
    stage: str, message: str, run: Run, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_path, real_scales = paths.reference_path, term_scales

    def sample(*arguments: Any, **options: Any) -> Tensor:
        latents: Tensor = real_sample(*arguments, steps=1, **options)
        return nan_like(latents)

    def path(*arguments: Any, **options: Any) -> PathOutput:
        output = real_path(*arguments, **options)
        return PathOutput(nan_like(output.prediction.clone()), output.layers)

    def scales(*arguments: Any) -> dict[str, float]:
        parts = list(arguments[1])
        parts[0].noise.fill_(float("nan"))
        return real_scales(arguments[0], parts, *arguments[2:])

    with monkeypatch.context() as patch, pytest.raises(FloatingPointError, match=message):
        if stage == "sampling reference portraits":
            patch.setattr(encoding, "sample", sample)
        elif stage == "making maps":
            patch.setattr(paths, "reference_path", path)
        else:
            patch.setattr(stage2, "term_scales", scales)
        run(tmp_path / "parts")
    assert same(run(tmp_path / "parts")[1], whole[1])


def test_an_adapter_that_is_not_finite_is_not_exported_over_a_good_one(run: Run, tmp_path: Path) -> None:
    trainer, _ = run(tmp_path)
    before = contents(tmp_path)
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="nothing is exported to .*adapter: .* is not finite"):
        trainer.export(tmp_path / "adapter")
    assert contents(tmp_path) == before
