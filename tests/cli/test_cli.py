"""Every command, called as from a shell, on small things."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import spf_lite
from spf_lite import cli
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation import benchmark, measuring, portraits
from spf_lite.evaluation.report import PollutionReport
from spf_lite.evaluation.statistics import Estimate
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import AttentionError
from spf_lite.models.running.sampling import sample
from spf_lite.pretrain import check as evaluation
from spf_lite.pretrain import run as pretraining
from spf_lite.pretrain.check import Check
from spf_lite.profiling import cost, shape_cost
from spf_lite.profiling.cost import Cost
from spf_lite.profiling.counted import CountedStep
from spf_lite.tiny_world import custom_sets
from spf_lite.tiny_world.custom_sets import CAPTIONS, SetNote
from spf_lite.tiny_world.portraits import TARGETS
from spf_lite.training import recipes

from ..conftest import deaf_unet

SHORT = TrainConfig(stage1_steps=2, stage2_steps=1, batch_size=2, rank=2, learning_rate=0.05)


@pytest.fixture
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = recipes.recipe

    def short(name: str, seed: int = 0, after: bool = False) -> TrainConfig:
        return replace(SHORT, seed=known(name, seed).seed, checkpoint_every=1)

    monkeypatch.setattr(recipes, "recipe", short)
    monkeypatch.setattr(benchmark, "recipe", short)


def one_step(backbone: Backbone, prompts: list[str], **options: Any) -> list[Image.Image]:
    """As :func:`spf_lite.sample`, in one denoising step."""
    images: list[Image.Image] = sample(backbone, prompts, **{**options, "steps": 1})
    return images


@pytest.fixture
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portraits of one step."""

    monkeypatch.setattr(measuring, "sample", one_step)
    monkeypatch.setattr(portraits, "sample", one_step)


@pytest.fixture
def model(toy_samples: Path) -> str:
    return str(toy_samples / "tiny-portraits")


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


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


def test_check_prints_the_table_and_fails_when_something_is_missed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "sample", one_step)
    table = tmp_path / "new" / "check.txt"
    assert run("check", "--model", model, "--prompts", 1, "--save", table) == 1, "it is untrained"
    lines = table.read_text().splitlines()
    assert any("MISSED" in line for line in lines) and lines[-1].endswith("requirements met")
    assert [record.message for record in logged.records][-len(lines) - 1 :] == [*lines, f"wrote {table}"]
    good = Check("follows skin", Estimate(1, 1, 1, 1), ">= 0.90", True)
    monkeypatch.setattr(evaluation, "check_model", lambda backbone, prompts: [good] * prompts)
    assert run("check", "--model", model, "--prompts", 2) == 0
    assert logged.records[-1].message == "2 of 2 requirements met"


def test_compare_prints_one_line_a_method(
    toy_samples: Path,
    short_recipes: None,
    quick_reports: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    monkeypatch.setattr(benchmark, "DATA_SAMPLES", toy_samples)
    monkeypatch.setattr(benchmark, "write_custom_set", partial(custom_sets.write_custom_set, count=4, size=64))
    saved = tmp_path / "new" / "table.md"
    arguments = ("compare", "sunglasses", tmp_path, "--prompts", 2, "--seeds", 7, "--methods", "spf", "naive")
    painted = tmp_path / "pictures" / "people.png"
    assert run(*arguments, "--save", saved, "--pictures", painted) == 0
    with Image.open(painted) as picture:
        assert picture.width > picture.height > 200, "five people across, three rows"
    lines = saved.read_text().splitlines()
    assert [line.split()[1] for line in lines if not line.startswith("|-")] == ["method", "spf", "naive"]
    said = [record.message for record in logged.records if record.name == "spf_lite"]
    assert said == [*lines, f"wrote {saved}", f"wrote {painted}"]
    assert {path.parent.name for path in tmp_path.rglob("row.json")} == {"spf-7", "naive-7"}
    assert SetNote.read(tmp_path / "sunglasses" / "set-7") == SetNote.of("sunglasses", 7)
    capsys.readouterr()  # progress bars
    assert "holds a run on the set of draw 7" in refused(capsys, *arguments, "--confounders", "shipped")
    assert "invalid choice: 'wild'" in refused(capsys, *arguments, "--confounders", "wild")
    shipped = (*arguments[:2], tmp_path / "shipped", "--prompts", 2, "--seeds", 7, "--methods", "naive")
    assert (
        run(*shipped, "--confounders", "shipped") == 0 and not (tmp_path / "shipped" / "sunglasses" / "set-7").exists()
    )


def test_paint_shows_the_base_and_every_adapter(
    toy_samples: Path,
    model: str,
    short_recipes: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SPF_LITE_TINY", model)
    assert run("train", toy_samples / "custom" / "sunglasses", tmp_path / "run", "--model", model) == 0
    heights = []
    for number, adapters in enumerate(([tmp_path / "run" / "adapter"], [tmp_path / "run" / "adapter"] * 2)):
        picture = tmp_path / "new" / f"{number}.png"
        adapters = [adapters[0], *(copy_of(folder, tmp_path / "other") for folder in adapters[1:])]
        assert run("paint", "sunglasses", picture, *adapters, "--people", 2) == 0
        assert logged.records[-1].message == f"wrote {picture}"
        with Image.open(picture) as image:
            heights.append(image.height)
    assert heights[1] > 1.3 * heights[0], "one more row"


def copy_of(folder: Path, other: Path) -> Path:
    """The same folder under another name."""
    return Path(shutil.copytree(folder, other))


def test_measure_says_writes_and_saves(
    toy_samples: Path,
    model: str,
    short_recipes: None,
    quick_reports: None,
    tmp_path: Path,
    logged: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, saved = tmp_path / "run", tmp_path / "new" / "report.json"
    assert run("train", toy_samples / "custom" / "sunglasses", output, "--model", model) == 0
    adapter = output / "adapter"
    arguments = ("measure", adapter, "sunglasses", "--model", model, "--prompts", 2)
    assert run(*arguments, "--save", saved) == 0
    found = PollutionReport.from_json(saved.read_text())
    assert found.target == "sunglasses" and len(found.values["flip rate"]) == 2
    assert "\n".join(record.message for record in logged.records).endswith(
        f"{found}\nwords whose portraits moved most at base text: too few prompts to say\nwrote {saved}"
    )
    card = (adapter / "README.md").read_text()
    for name, value in found.estimates().items():
        assert f"| {name} | {value} |" in card
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    note = {"target": "sunglasses", "confounders": 4, "spurious": {"background": "pink"}}
    (drawn / "spurious.json").write_text(json.dumps(note))
    assert run(*arguments, "--save", saved, "--custom-set", drawn) == 0
    other = PollutionReport.from_json(saved.read_text())
    assert other.values["flip rate"] == found.values["flip rate"] and list(other.bias) == ["background"]
    capsys.readouterr()  # progress bars
    line = refused(capsys, "measure", adapter, "beard", "--model", model, "--custom-set", drawn)
    assert line == f"{drawn} is a custom set of sunglasses, not of beard"
    line = refused(capsys, *arguments, "--custom-set", tmp_path)
    assert line == f"{tmp_path} does not say what its portraits share: there is no spurious.json"
    (adapter / "README.md").unlink()
    assert run(*arguments) == 0, "an adapter from elsewhere has no card"
    assert not (adapter / "README.md").exists()


def test_memory_lists_causes_and_says_whether_a_card_is_enough(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    step = ("memory", "sd15", "--pixels", 64, "--step", "plain", "--gradient-checkpointing")
    assert run(*step) == 0
    said = [record.message for record in logged.records]
    assert any(line.startswith("largest block") for line in said) and said[-1].endswith("batch size 1, 64 pixels")
    saved = tmp_path / "new" / "memory.json"
    assert run(*step, "--card", 16, "--save", saved) == 0
    assert logged.records[-1].message == "a card of 16 GB is enough"
    counted = CountedStep.from_json(saved.read_text())
    assert (counted.shape, counted.variant, counted.pixels) == ("sd15", "plain LoRA", 64)
    assert (counted.dtype, counted.compute, counted.checkpointing) == ("float16", "float16", True)
    assert f"{counted.memory.total() / 1e9:6.2f} GB, batch size 1, 64 pixels" in said[-1]
    assert run(*step, "--card", 0.5) == 1 and logged.records[-1].message == "a card of 0.5 GB is too small"


def test_cost_prints_and_saves_every_variant(
    toy_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, int]] = []
    costs = [Cost("tiny", "(a)", 0.5, 1.0, 100.0, 2), Cost("tiny", "sampling", 1.5, 1.0, None, 2)]

    def measured(model: str, rounds: int) -> list[Cost]:
        asked.append((model, rounds))
        return costs

    monkeypatch.setattr(cost, "measure_costs", measured)
    saved = tmp_path / "new" / "cost.json"
    assert run("cost", "--rounds", 2, "--save", saved) == 0
    assert asked == [("tiny", 2)]
    assert [Cost(**row) for row in json.loads(saved.read_text())] == costs
    assert [record.message for record in logged.records][-3:-1] == list(map(str, costs))

    def of_shape(*arguments: object) -> list[Cost]:
        assert arguments == ("sd3", 128, 5, torch.bfloat16)
        return costs

    monkeypatch.setattr(shape_cost, "shape_costs", of_shape)
    assert run("cost", "--model", "sd3", "--pixels", 128, "--dtype", "bfloat16") == 0


def test_a_lora_file_at_any_strength(model: str, custom_folder: Path, short_recipes: None, tmp_path: Path) -> None:
    assert run("train", custom_folder, tmp_path / "run", "--model", model, "--method", "naive") == 0
    file = tmp_path / "of_any_name.safetensors"
    shutil.copy(tmp_path / "run" / "adapter" / ADAPTER_FILE, file)
    seen = {}
    for name, options in {
        "base": (),
        "none": ("--adapter", file, "--strength", 0),
        "whole": ("--adapter", file),
        "folder": ("--adapter", tmp_path / "run" / "adapter"),
        "twice": ("--adapter", file, "--strength", 2),
    }.items():
        picture = tmp_path / f"{name}.png"
        assert run("sample", "sunglasses", picture, "--model", model, "--steps", 2, "--seeds", 0, *options) == 0
        seen[name] = picture.read_bytes()
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
    seen = {}
    for name, options in {
        "both": ("--adapter", tmp_path / "both"),
        "each": ("--adapter", first / "adapter", "--adapter", second / "adapter"),
        "half": ("--adapter", first / "adapter", "--strength", 1, "--adapter", second / "adapter", "--strength", 0.5),
        "one": ("--adapter", tmp_path / "one"),
        "first": ("--adapter", first / "adapter"),
    }.items():
        picture = tmp_path / f"{name}.png"
        assert run("sample", "sunglasses", picture, "--model", model, "--steps", 2, "--seeds", 0, *options) == 0
        seen[name] = picture.read_bytes()
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


# -- bad input: exit status 2 and one line that says what to mend ------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command leaves on stderr."""
    try:
        status: object = run(*arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if not line.startswith("Token indices sequence length")]
    start = f"spf-lite {arguments[0]}: "
    assert line.startswith(start)
    return line.removeprefix(start)


@pytest.mark.parametrize("command", [("sample", "a person", "x.png"), ("check",), ("train", "SET", "OUT")])
def test_an_unknown_model_folder(
    command: tuple[str, ...], custom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"SET": custom_folder, "OUT": tmp_path / "run"}
    nowhere = tmp_path / "nowhere"
    line = refused(capsys, *(places.get(word, word) for word in command), "--model", nowhere)
    assert line == f"no diffusers model in {nowhere}: there is no model_index.json"


@pytest.mark.parametrize("command", ["check", "train", "sample", "combine", "parts", "export-onnx", "measure"])
def test_every_command_says_which_files_of_a_model_are_meant(
    command: str, model: str, custom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, tuple[object, ...]] = {
        "train": (custom_folder, tmp_path / "run"),
        "sample": ("x", tmp_path / "x.png"),
        "combine": (tmp_path / "both", tmp_path),
        "parts": (tmp_path,),
        "export-onnx": (tmp_path / "onnx",),
        "measure": (tmp_path, "sunglasses"),
    }
    arguments = (command, *given.get(command, ()), "--model")
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert "revision='v1' (--revision) is for a model of the hub" in refused(
        capsys, *arguments, model, "--revision", "v1"
    )
    assert "(variant 'fp16', --variant: there are " in refused(capsys, *arguments, model, "--variant", "fp16")
    assert "config='.' (--config) is for a single file" in refused(capsys, *arguments, model, "--config", ".")
    file = (*arguments, tmp_path / "a.safetensors")
    assert "variant='fp16' (--variant) chooses among" in refused(capsys, *file, "--variant", "fp16")
    assert "a.safetensors cannot be read" in refused(capsys, *file, "--config", model)
    assert not (tmp_path / "run").exists() and not (tmp_path / "x.png").exists()


def test_latents_are_kept_for_other_runs(model: str, custom_folder: Path, short_recipes: None, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        output, cache = tmp_path / name, tmp_path / "new" / "cache"
        assert run("train", custom_folder, output, "--model", model, "--cache-latents", cache) == 0
        files.append([(path.name, path.stat().st_mtime_ns) for path in cache.iterdir()])
    assert len(files[0]) == 1 and files[0] == files[1]
    weights = [load_file(tmp_path / name / "adapter" / ADAPTER_FILE) for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_model_that_no_word_reaches(toy_samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(toy_samples / "tiny-portraits", tmp_path / "deaf")
    deaf_unet().save_pretrained(folder / "unet")
    assert "the UNet has no cross-attention layers" in refused(capsys, "sample", "x", "x.png", "--model", folder)


GOOD = {"file_name": "a.png", "base_text": "a person, smiling", "target_text": "sunglasses"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "metadata.jsonl, line 2: not valid JSON"),
        ({**GOOD, "file_name": "b.png"}, "metadata.jsonl, line 2: there is no image"),
        ({**GOOD, "file_name": "corrupt.png"}, "metadata.jsonl, line 2: the image"),
        ({**GOOD, "mask_file": "c.png"}, "metadata.jsonl, line 2: there is no mask"),
        ({**GOOD, "target_text": ""}, "metadata.jsonl, line 2: 'target_text' is missing, empty"),
        ({**GOOD, "base_text": "hair " * 29}, "the target 'sunglasses' would be truncated"),
        ({**GOOD, "base_text": "hair " * 40}, "has 42 tokens, the text encoder takes 32"),
    ],
    ids=["not JSON", "no image", "corrupt image", "no mask", "no target", "target truncated", "base text too long"],
)
def test_a_custom_set_that_cannot_be_used(
    line: object, message: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    (tmp_path / "corrupt.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    second = line if isinstance(line, str) else json.dumps(line)
    (tmp_path / "metadata.jsonl").write_text(f"{json.dumps(GOOD)}\n{second}\n")
    assert message in refused(capsys, "train", tmp_path, tmp_path / "run", "--model", model, "--method", "naive")


def test_a_prompt_that_is_too_long(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = " ".join(["hair"] * 40)
    line = refused(capsys, "sample", prompt, tmp_path / "x.png", "--model", model)
    assert line == f"{prompt!r} has 42 tokens, the text encoder takes 32"
    assert not (tmp_path / "x.png").exists()


def test_other_things_that_do_not_exist(
    model: str,
    toy_folders: dict[str, Path],
    custom_folder: Path,
    quick_reports: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere = tmp_path / "nowhere"
    for command in (
        ("sample", "x", tmp_path / "x.png", "--model", model, "--adapter", nowhere),
        ("train", nowhere, tmp_path / "run", "--model", model),
        ("measure", nowhere, "sunglasses", "--model", model, "--prompts", 1),
        ("paint", "sunglasses", tmp_path / "x.png", nowhere),
    ):
        assert f"there is no '{nowhere}'" in refused(capsys, *command)
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "train", tmp_path / "empty", tmp_path / "run", "--model", model)
    assert "metadata.jsonl" in line
    line = refused(capsys, "sample", "x", tmp_path / "x.png", "--model", model, "--adapter", tmp_path / "empty")
    assert f"no adapter in {tmp_path / 'empty'}" in line
    line = refused(capsys, "train", custom_folder, tmp_path / "run", "--model", model, "--method", "magic")
    assert "unknown method 'magic': expected one of naive" in line
    line = refused(capsys, "measure", tmp_path, "monocle", "--model", model)
    assert "unknown target 'monocle'" in line
    line = refused(capsys, "measure", tmp_path, "sunglasses", "--model", toy_folders["v_prediction"])
    assert line.startswith("no judge in")
    line = refused(capsys, "compare", "sunglasses", tmp_path / "run", "--methods", "naive", "magic")
    assert "unknown method 'magic'" in line
    line = refused(capsys, "render", tmp_path / "x.png", "--target", "monocle")
    assert "unknown target 'monocle': the tiny world has sunglasses" in line
    assert not (tmp_path / "run").exists() and not (tmp_path / "x.png").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("render", "x.png", "--count", "0"), "--count: '0': expected a whole number, 1 or more"),
        (("render", "x.png", "--count", "many"), "--count: 'many': expected a whole number, 1 or more"),
        (("render", "x.png", "--size", "1"), "--size: '1': expected a whole number, 8 or more"),
        (("sample", "x", "x.png", "--steps", "0"), "--steps: '0': expected"),
        (("sample", "x", "x.png", "--seeds", "-1"), "--seeds"),
        (("sample", "x", "x.png", "--seeds", str(2**63)), "at most 9223372036854775807"),
        (("sample", "x", "x.png", "--guidance-scale", "nan"), "--guidance-scale: 'nan': expected a finite number"),
        (("measure", ".", "beard", "--prompts", "0"), "--prompts: '0': expected"),
        (("cost", "--rounds", "0"), "--rounds: '0': expected"),
    ],
)
def test_numbers_that_make_no_sense(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_changes_of_a_recipe_that_make_no_sense(
    model: str, custom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("train", custom_folder, tmp_path / "run", "--model", model, "--set")
    assert refused(capsys, *train, "rank=many") == "cannot set 'rank=many': expected a value like 16"
    line = refused(capsys, *train, "ranks=4")
    assert line.startswith("cannot set 'ranks=4': expected NAME=VALUE with one of stage1_steps, ")
    assert "batch_size=8 cannot be shared out" in refused(capsys, *train, "gradient_accumulation=3")
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_outputs_that_cannot_be_written_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(spf_lite, "load", work, raising=False)
    (tmp_path / "file").write_text("")
    sample = ("sample", "a person")
    assert "is a folder: expected the name of a file" in refused(capsys, *sample, tmp_path)
    assert "is a file, not a folder" in refused(capsys, *sample, tmp_path / "file" / "x.png")
    assert "ends in .png, .jpg or .webp" in refused(capsys, *sample, tmp_path / "x.exe")
    assert "is a file: expected a folder" in refused(capsys, "compare", "beard", tmp_path / "file")
    assert "is a folder" in refused(capsys, "check", "--save", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "cannot be written" in refused(capsys, "check", "--save", tmp_path / "new" / "check.txt")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory: try a smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), 2, "out of memory"),
        (AttentionError("the UNet is being recorded already"), 2, "the UNet is being recorded already"),
        (OSError(28, "No space left on device", "x.png"), 2, "No space left on device"),
        (FloatingPointError("step 3: denoise is nan"), 2, "step 3: denoise is nan"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_user_can_mend_is_one_line(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(target: str, folder: Path, confounders: int | None) -> None:
        raise error

    monkeypatch.setattr(custom_sets, "write_custom_set", fail)
    assert run("custom", "beard", tmp_path) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spf-lite custom: ") and said in line


def test_several_lines_of_another_library_become_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("first\n  second\tthird")

    monkeypatch.setattr(custom_sets, "write_custom_set", lambda target, folder, **options: fail(folder))
    assert refused(capsys, "custom", "beard", tmp_path) == "first second third"


@pytest.mark.parametrize("error", [KeyError("missing"), RuntimeError("shapes do not match"), AssertionError()])
def test_a_fault_of_the_program_is_not_hidden(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(target: str, folder: Path, confounders: int | None) -> None:
        raise error

    monkeypatch.setattr(custom_sets, "write_custom_set", fail)
    with pytest.raises(type(error)):
        run("custom", "beard", tmp_path)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["pretrain", "everything"], ["render"]])
def test_what_is_no_command_says_where_help_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spf-lite") and "--help" in line


def test_every_command_is_documented_and_made(capsys: pytest.CaptureFixture[str]) -> None:
    from spf_lite.cli import auditing, commands, measuring

    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert cli.__doc__ is not None
    listed = " ".join(cli.__doc__.split()).split("``spf-lite ")[1].split("``")[0].split(" | ")
    assert "{" + ",".join(listed) + "}" in shown
    functions = [name.replace("-", "_") for name in listed]
    modules = (commands, measuring, auditing)
    assert all(any(callable(getattr(module, name, None)) for module in modules) for name in functions)
