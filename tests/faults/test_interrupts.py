"""A keyboard interrupt at any moment: a checkpoint of whole steps, and nothing that cannot be gone on from."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spf_lite.training.run.checkpoint import RunFolderError
from spf_lite.training.trainer import DualPathTrainer

from .conftest import CONFIG, NAIVE, same, stop_at

Make = Callable[..., DualPathTrainer]


def saved_step(folder: Path) -> int:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["state"]
    return int(state["step"])


@pytest.mark.parametrize("number", range(4))
def test_an_interrupt_saves_a_checkpoint_and_the_same_trainer_may_go_on(
    number: int, make: Make, whole: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    config = replace(CONFIG, checkpoint_every=100)
    trainer = make(tmp_path, config)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(on_step=stop_at(number, KeyboardInterrupt()), progress=False)
    assert saved_step(tmp_path) == number + 1
    resumed = make(tmp_path, config)
    resumed.fit(resume=True, progress=False)
    assert same(resumed.trained.state(), whole[1])
    assert (tmp_path / "log.jsonl").read_bytes() == (whole[0] / "log.jsonl").read_bytes()
    trainer.fit(progress=False)
    assert same(trainer.trained.state(), whole[1])


def test_a_signal_within_a_step_waits_for_its_end(make: Make, tmp_path: Path) -> None:
    trainer = make(tmp_path, replace(NAIVE, checkpoint_every=100, stage1_steps=5))
    forward_passes: list[int] = []

    def interrupt(module: object, inputs: object, output: object) -> None:
        forward_passes.append(trainer.step)
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.backbone.pipe.unet.conv_out.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress=False)
    assert forward_passes == [0, 1, 2] and saved_step(tmp_path) == 3, "the step was made, and saved"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_interrupted_within_an_update_is_not_saved(make: Make, tmp_path: Path) -> None:
    trainer = make(tmp_path, NAIVE)

    def cut_short(step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt

    trainer.trained.after_backward = cut_short  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress=False)
    assert saved_step(tmp_path) == 1
    with pytest.raises(RunFolderError, match="interrupted within an update: make a new one and resume"):
        trainer.fit(progress=False)
