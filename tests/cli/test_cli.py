"""What every command does alike: refusals of one line, and help."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import spf_lite
from spf_lite import cli
from spf_lite.models.backbones.recording import AttentionError
from spf_lite.tiny_world import custom_sets

from ..conftest import deaf_unet
from .shell import refused, run


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
    from spf_lite.cli import auditing, commands, measuring, memory

    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert cli.__doc__ is not None
    listed = " ".join(cli.__doc__.split()).split("``spf-lite ")[1].split("``")[0].split(" | ")
    assert "{" + ",".join(listed) + "}" in shown
    functions = [name.replace("-", "_") for name in listed]
    modules = (commands, measuring, auditing, memory)
    assert all(any(callable(getattr(module, name, None)) for module in modules) for name in functions)
