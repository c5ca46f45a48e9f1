from pathlib import Path

import pytest

from spf_lite.profiling.counted import CountedStep

from .shell import refused, run


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


def test_memory_of_a_run_lists_its_moments_and_estimates_its_time(logged: pytest.LogCaptureFixture) -> None:
    changes = ("--set", "mixed_precision=fp16", "--set", "batch_size=4", "--set", "gradient_accumulation=2")
    assert run("memory", "sd15", "--pixels", 64, "--method", "pure-pairs", *changes, "--card", "T4") == 0
    said = [record.message for record in logged.records]
    for moment in ("encode the set, 8 portraits", "paint for stage 2, 32 portraits", "training step, 2 portraits"):
        assert f"{moment} at a time" in said
    assert said.count(next(line for line in said if line.startswith("largest moment: "))) == 1
    assert any(line.startswith("1000 steps of ") for line in said)
    assert any(line.startswith("at most 320 portraits to paint") for line in said)
    assert said[-2].startswith("on a T4 about ") and said[-1] == "a T4 of 16 GB is enough"


def test_options_of_memory_that_make_no_sense_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "memory", "sd15", "--method", "naive", "--batch-size", 2, "--gradient-checkpointing")
    assert (
        line == "--batch-size, --gradient-checkpointing cannot be combined with --method: change the recipe with --set"
    )
    assert refused(capsys, "memory", "sd15", "--set", "rank=4") == "--set changes a recipe: name one with --method"
    assert "'T5': expected T4, L4, A100, or a memory in GB above 0" in refused(capsys, "memory", "sd15", "--card", "T5")
