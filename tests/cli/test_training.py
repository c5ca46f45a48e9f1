"""Training, sampling and combining, called as from a shell, on small things."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spf_lite.config import TrainConfig
from spf_lite.models.adapters.lora import ADAPTER_FILE

from .shell import SHORT, pixels, refused, run


def test_train_then_sample(model: str, custom_folder: Path, short_recipes: None, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run("train", custom_folder, output, "--model", model, "--method", "naive", "--seed", 3) == 0
    assert json.loads((output / "config.json").read_text())["seed"] == 3
    log = (output / "log.jsonl").read_text()
    assert len(log.splitlines()) == 3
    assert run("train", custom_folder, output, "--model", model, "--method", "naive", "--seed", 3, "--resume") == 0
    assert (output / "log.jsonl").read_text() == log, "there was nothing left to do"

    draw = ("sample", "a person, sunglasses", "--model", model, "--steps", 2, "--seeds", 4, 5, 6)
    assert run(*draw[:2], tmp_path / "plain.png", *draw[2:]) == 0
    assert run(*draw[:2], tmp_path / "tuned.png", *draw[2:], "--adapter", output / "adapter") == 0
    plain, tuned = pixels(tmp_path / "plain.png"), pixels(tmp_path / "tuned.png")
    assert plain.shape == tuned.shape == (64, 3 * 64, 3), "one portrait a seed, side by side"
    assert np.abs(plain - tuned).max() > 1
    assert np.abs(plain[:, :64] - plain[:, 64:128]).max() > 1
    assert run(*draw[:2], tmp_path / "loud.png", *draw[2:], "--guidance-scale", 9) == 0
    assert np.abs(plain - pixels(tmp_path / "loud.png")).max() > 1


@pytest.mark.parametrize("option", ["--resume", "--extend"])
def test_train_goes_on_with_a_run_only_where_there_is_one(
    option: str,
    model: str,
    custom_folder: Path,
    short_recipes: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = ("train", custom_folder, tmp_path / "run", "--model", model, "--method", "naive")
    assert "there is no such folder: look at the path" in refused(capsys, *train, option)
    assert not (tmp_path / "run").exists(), "nothing was begun"
    (tmp_path / "run").mkdir()
    assert "no run was begun in it" in refused(capsys, *train, option)
    assert run(*train) == 0
    (tmp_path / "run" / "checkpoint.pt").unlink()  # killed before the first one: the run goes on at its first step
    assert run(*train, option) == 0
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3


def sampled(model: str, picture: Path, *options: object) -> bytes:
    """What the command ``sample`` writes with some options."""
    assert run("sample", "sunglasses", picture, "--model", model, "--steps", 2, "--seeds", 0, *options) == 0
    return picture.read_bytes()


def test_a_lora_file_at_any_strength(model: str, custom_folder: Path, short_recipes: None, tmp_path: Path) -> None:
    assert run("train", custom_folder, tmp_path / "run", "--model", model, "--method", "naive") == 0
    file = tmp_path / "of_any_name.safetensors"
    shutil.copy(tmp_path / "run" / "adapter" / ADAPTER_FILE, file)
    adapters = {
        "base": (),
        "none": ("--adapter", file, "--strength", 0),
        "whole": ("--adapter", file),
        "folder": ("--adapter", tmp_path / "run" / "adapter"),
        "twice": ("--adapter", file, "--strength", 2),
    }
    seen = {name: sampled(model, tmp_path / f"{name}.png", *options) for name, options in adapters.items()}
    assert seen["none"] == seen["base"] and seen["whole"] == seen["folder"]
    assert len({seen[name] for name in ("base", "whole", "twice")}) == 3


def test_one_attribute_after_another(
    model: str, custom_folder: Path, short_recipes: None, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    """Learned one on top of the other, written as one file, listed, and taken out again."""
    train = ("train", custom_folder, "--model", model, "--method", "naive")
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run(*train[:2], first, *train[2:]) == 0
    assert run(*train[:2], second, *train[2:], "--after", first / "adapter") == 0
    before = ("--after", first / "adapter", "--after", second / "adapter")
    assert run(*train[:2], third, *train[2:], *before, "--continued", "--set", "rank=4") == 0
    assert run("combine", tmp_path / "both", first / "adapter", second / "adapter", "--model", model) == 0
    assert run("combine", tmp_path / "one", tmp_path / "both", "--without", "second", "--model", model) == 0
    logged.clear()
    assert run("parts", tmp_path / "both", tmp_path / "one", third / "adapter", "--model", model) == 0
    said = [record.message.split(": ")[1] for record in logged.records]
    assert said == [
        "first, strength 1, rank 2",
        "second, strength 1, rank 2",
        "first, strength 1, rank 2",
        "third, strength 1, rank 4",
    ]
    adapters = {
        "both": ("--adapter", tmp_path / "both"),
        "each": ("--adapter", first / "adapter", "--adapter", second / "adapter"),
        "half": ("--adapter", first / "adapter", "--strength", 1, "--adapter", second / "adapter", "--strength", 0.5),
        "one": ("--adapter", tmp_path / "one"),
        "first": ("--adapter", first / "adapter"),
    }
    seen = {name: sampled(model, tmp_path / f"{name}.png", *options) for name, options in adapters.items()}
    assert seen["both"] == seen["each"] and seen["one"] == seen["first"]
    assert len({seen[name] for name in ("both", "half", "first")}) == 3


def test_adapters_that_cannot_be_combined(
    model: str, custom_folder: Path, short_recipes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", custom_folder, tmp_path / "hat", "--model", model, "--method", "naive") == 0
    capsys.readouterr()
    hat, out = tmp_path / "hat" / "adapter", tmp_path / "both"
    assert "called hat: rename" in refused(capsys, "combine", out, hat, hat, "--model", model)
    assert "no part nose: there are hat" in refused(capsys, "combine", out, hat, "--without", "nose", "--model", model)
    assert "2 strengths for 1" in refused(capsys, "combine", out, hat, "--strengths", 1, 2, "--model", model)
    picture = tmp_path / "x.png"
    line = refused(capsys, "sample", "x", picture, "--adapter", hat, "--strength", 1, "--strength", 2, "--model", model)
    assert "2 strengths for 1 adapters" in line
    line = refused(capsys, "train", custom_folder, tmp_path / "run", "--model", model, "--continued")
    assert "continued needs the adapters that training goes on with" in line
    assert not out.exists() and not picture.exists()


def test_train_takes_changes_to_the_recipe(
    model: str, custom_folder: Path, short_recipes: None, tmp_path: Path
) -> None:
    changes = ("--set", "stage1_steps=1", "--set", "stage2_steps=0", "--set", "control.threshold=0.2")
    assert run("train", custom_folder, tmp_path, "--model", model, *changes) == 0
    config = TrainConfig.from_json((tmp_path / "config.json").read_text())
    assert config == replace(
        SHORT, stage1_steps=1, stage2_steps=0, checkpoint_every=1, control=replace(SHORT.control, threshold=0.2)
    )
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_train_with_frozen_weights_of_sixteen_bits(
    model: str, custom_folder: Path, short_recipes: None, tmp_path: Path, fresh_accelerate: None
) -> None:
    train: tuple[object, ...] = ("train", custom_folder, tmp_path / "run", "--model", model, "--dtype", "bfloat16")
    train += ("--set", "mixed_precision=bf16", "--set", "gradient_accumulation=2")
    assert run(*train) == 0
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert run(*train, "--resume") == 0 and (tmp_path / "run" / "log.jsonl").read_text() == log
    weights = load_file(tmp_path / "run" / "adapter" / ADAPTER_FILE)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    draw = ("sample", "a person", tmp_path / "portrait.png", "--model", model, "--steps", 1, "--seeds", 0)
    assert run(*draw, "--adapter", tmp_path / "run" / "adapter") == 0
    exact = pixels(tmp_path / "portrait.png")
    assert run(*draw, "--adapter", tmp_path / "run" / "adapter", "--dtype", "bfloat16") == 0
    assert np.abs(exact - pixels(tmp_path / "portrait.png")).max() > 0, "rounded"


def test_latents_are_kept_for_other_runs(model: str, custom_folder: Path, short_recipes: None, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        output, cache = tmp_path / name, tmp_path / "new" / "cache"
        assert run("train", custom_folder, output, "--model", model, "--cache-latents", cache) == 0
        files.append([(path.name, path.stat().st_mtime_ns) for path in cache.iterdir()])
    assert len(files[0]) == 1 and files[0] == files[1]
    weights = [load_file(tmp_path / name / "adapter" / ADAPTER_FILE) for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
