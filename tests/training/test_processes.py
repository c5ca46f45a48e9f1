"""What only whole processes show: a run that is killed goes on exactly, and two processes learn as one does."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spf_lite.models.adapters.lora import ADAPTER_FILE
from tests.processes import command, ended_well

#: Ten in a thorough run: SPF_LITE_KILLS=10.
KILLS = int(os.environ.get("SPF_LITE_KILLS", 1))
CHANGES = {
    "stage1_steps": 20,
    "stage2_steps": 20,
    "batch_size": 4,
    "rank": 2,
    "checkpoint_every": 3,
    "reference_portraits": 2,
    "map_source": "averaged",
}


def options(toy: Path, custom: Path, output: Path, **changes: object) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in {**CHANGES, **changes}.items()]
    return ["train", str(custom), str(output), "--model", str(toy), "--method", "spf", *settings]


def weights_of(output: Path) -> dict[str, list[float]]:
    tensors = load_file(output / "adapter" / ADAPTER_FILE)
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


def history(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def written(log: Path) -> int:
    """Lines of a log that may not be there yet."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_killed_at_random_moments_the_run_ends_with_the_same_weights(
    toy_folders: dict[str, Path], custom_folder: Path, tmp_path: Path
) -> None:
    toy, said, parts = toy_folders["v_prediction"], tmp_path / "said", tmp_path / "parts"
    ended_well(command(options(toy, custom_folder, tmp_path / "whole"), said), said)
    rng = random.Random(0)
    log, begin = parts / "log.jsonl", options(toy, custom_folder, parts)
    killed = 0
    for _ in range(20 * KILLS):
        if killed == KILLS:
            break
        if (parts / "adapter").exists():  # It was too fast: once more.
            shutil.rmtree(parts)
        # Steps decide, not seconds: how long a step takes depends on what else the machine does.
        last = written(log) + rng.randint(1, max(1, 30 // KILLS))
        process = command([*begin, *(["--resume"] if log.exists() else [])], said)
        while process.is_alive() and written(log) < last:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed == KILLS, said.read_text()
    ended_well(command([*begin, "--resume"], said), said)
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole"), "to the last bit"
    assert [line["loss"] for line in history(tmp_path / "parts")] == [
        line["loss"] for line in history(tmp_path / "whole")
    ]


def test_two_processes_have_the_losses_of_one(
    toy_folders: dict[str, Path], custom_folder: Path, tmp_path: Path
) -> None:
    changes = {"stage1_steps": 4, "stage2_steps": 4}
    toy, said = toy_folders["v_prediction"], tmp_path / "said"
    alone = command(options(toy, custom_folder, tmp_path / "one", **changes), said)
    # Without cards, too: --multi_gpu starts processes, where --cpu starts one alone, whatever --num_processes says.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--main_process_port=0", "--tee=3", f"--log_dir={tmp_path / 'ranks'}", "-m", "spf_lite.cli"]
    together = [*launch, *options(toy, custom_folder, tmp_path / "two", **changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(together, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {file.parent.name for file in (tmp_path / "ranks").rglob("stdout.log")} == {"0", "1"}, "there were two"
    ended_well(alone, said)
    one, two = (history(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 8, "only one process writes"
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-5)
    assert [line["denoise"] for line in two] == pytest.approx([line["denoise"] for line in one], abs=1e-5)
    assert {name for name in weights_of(tmp_path / "two")} == {name for name in weights_of(tmp_path / "one")}
