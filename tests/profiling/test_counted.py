"""Counts as files, and the stored ones of large shapes."""

from pathlib import Path

import pytest
import torch

from spf_lite.models.backbone import Backbone
from spf_lite.paths import DATA_SAMPLES
from spf_lite.profiling import memory
from spf_lite.profiling.counted import CountedStep, count_step
from spf_lite.profiling.memory import StepMemory, step_memory
from spf_lite.profiling.moments import ENCODING, PAINTING, USING, passes
from spf_lite.profiling.shapes import shape_on_meta

STORED = DATA_SAMPLES / "results" / "memory"
#: Shapes and sizes that are stored, each without and with gradient checkpointing.
SIZES = {"sdxl": (512, 1024), "sd3": (1024,), "pixart-sigma": (1024,)}


def read(path: Path) -> CountedStep:
    return CountedStep.from_json(path.read_text(encoding="utf-8"))


def stored(shape: str, pixels: int, checkpointing: bool) -> CountedStep:
    return read(STORED / f"{shape}-{pixels}{'-checkpointing' * checkpointing}.json")


def test_a_record_is_read_as_it_was_written() -> None:
    memory = StepMemory({"UNet": 2}, {"activations": 1})
    counted = CountedStep("sd15", "dual path", 512, "float16", None, True, memory, {"encode the set": 3})
    assert CountedStep.from_json(counted.to_json()) == counted


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"memory": 1}', '{"memory": {"fixed": {}, "per_portrait": {}}}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no record of a counted step|Expecting value"):
        CountedStep.from_json(text)


def test_a_step_is_counted_with_its_settings(toy: Backbone) -> None:
    counted = count_step("sd15", toy, "plain LoRA", 64, "bfloat16", "bfloat16", checkpointing=True)
    backbone = shape_on_meta("sd15", toy, torch.bfloat16)
    expected = step_memory(backbone, "plain LoRA", 64, torch.bfloat16, checkpointing=True)
    around = {name: each.peak for name, each in passes(backbone, 64).items()}
    assert counted == CountedStep("sd15", "plain LoRA", 64, "bfloat16", "bfloat16", True, expected, around)


def test_both_types_of_16_bits_take_the_same(shapes: Backbone) -> None:
    counted = {step_memory(shapes, "dual path", 64, dtype).total() for dtype in (torch.float16, torch.bfloat16)}
    assert len(counted) == 1


@pytest.mark.parametrize("shape", SIZES)
def test_stored_counts_have_the_settings_of_their_names_and_the_models_of_today(shape: str, toy: Backbone) -> None:
    backbone = shape_on_meta(shape, toy, torch.float16)
    for pixels in SIZES[shape]:
        whole, again = (stored(shape, pixels, checkpointing) for checkpointing in (False, True))
        for counted, checkpointing in ((whole, False), (again, True)):
            settings = (shape, "dual path", pixels, "float16", "float16", checkpointing)
            assert counted == CountedStep(*settings, counted.memory, whole.passes)
            assert list(counted.passes) == [ENCODING, PAINTING, USING]
            fixed = dict(counted.memory.fixed)
            assert fixed.pop("16-bit copies of weights") < 0.01 * sum(fixed.values())
            assert fixed == memory.model_bytes(backbone), "count it again: spf-lite memory --save"
        grows, computed_again = whole.memory.per_portrait, again.memory.per_portrait
        assert 2 * (computed_again["activations"] + computed_again["largest block"]) < grows["activations"]


def test_nothing_else_is_stored() -> None:
    found = {(counted.shape, counted.pixels, counted.checkpointing) for counted in map(read, STORED.glob("*.json"))}
    assert len(found) == len(list(STORED.iterdir()))
    assert found == {(shape, size, on) for shape, sizes in SIZES.items() for size in sizes for on in (False, True)}


@pytest.mark.slow
def test_a_stored_count_is_that_of_today(toy: Backbone) -> None:
    expected = stored("pixart-sigma", 1024, checkpointing=True)
    assert count_step("pixart-sigma", toy, checkpointing=True) == expected
