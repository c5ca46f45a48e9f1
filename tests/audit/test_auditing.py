"""The whole audit, of LoRAs as other tools write them, on small random models."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from spf_lite.audit import auditing
from spf_lite.audit.auditing import audit
from spf_lite.audit.prompts import Prompt
from spf_lite.audit.sampling import Sampler
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError
from spf_lite.models.tokenizer import PromptTooLongError

from .conftest import ENDS, PROMPTS, bytes_of

UNRELATED = ["blue background", "gray background"]


@pytest.fixture
def nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*arguments: object, **options: object) -> None:
        raise AssertionError("something was sampled")

    monkeypatch.setattr("spf_lite.audit.sampling.sample", sampled)


def test_the_whole_audit_of_a_lora_by_diffusers(toy: Backbone, diffusers_lora: Path) -> None:
    progress: list[tuple[int, int]] = []
    found = audit(
        toy, diffusers_lora, PROMPTS, UNRELATED,
        target_text="sunglasses", strengths=(0, 1, 2), steps=2, on_progress=lambda *now: progress.append(now),
    )  # fmt: skip
    report = found.report
    assert report.complete_texts == [f"{prompt.base_text}, sunglasses" for prompt in PROMPTS]
    assert report.seeds == [1000, 1001, 1002] and progress == [(3, 3)] and len(found.cases) == 3
    assert {len(row) for name, row in report.values.items() if name != "unrelated prompts"} == {3}
    assert len(report.values["unrelated prompts"]) == 2
    assert {"reconstruction", "leakage", "change outside", "CLIP-T gain", "CLIP-I"} <= set(report.estimates())
    none, whole, twice = report.sweep
    assert none.values["reconstruction"] == [0.0] * 3, "at strength 0 the original portraits come back"
    assert whole.values == {name: row for name, row in report.values.items() if name != "unrelated prompts"}
    assert twice.estimates()["reconstruction"].mean > 0 and twice.values != whole.values
    assert report.settings["parts of the adapter"] == "by-diffusers, strength 1, rank 2"
    assert report.settings["region of the target"] == "control map of the adapter"
    assert len(report.settings["SHA-256 of the adapter"]) == 64 and "diffusers " in report.settings["versions"]
    after = Sampler(toy, 2).after([PROMPTS[0].base_text], [1000])
    load_adapter(toy, diffusers_lora)
    assert bytes_of(after) == bytes_of(Sampler(toy, 2).after([PROMPTS[0].base_text], [1000])), "it is loaded again"


def test_strength_0_is_what_was_painted_without_the_adapter(
    toy: Backbone, diffusers_lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []
    known = Sampler.after

    def counted(sampler: Sampler, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        painted.append(len(texts))
        return known(sampler, texts, seeds)

    monkeypatch.setattr(Sampler, "after", counted)
    report = audit(toy, diffusers_lora, PROMPTS, target_text="sunglasses", strengths=(0, 1), steps=1).report
    assert painted == [3] * 4, "both texts without and with the adapter, each once"
    none, values = report.sweep[0].values, report.values
    assert none["pixel change"] == none["pixel change by words alone"] == values["pixel change by words alone"]
    assert none["change outside"] == values["change outside by words alone"]
    assert none["CLIP-T after"] == pytest.approx(values["CLIP-T by words alone"])
    assert none["CLIP-T gain over words"] == [0.0] * 3 and none["CLIP-I at complete text"] == pytest.approx([1.0] * 3)
    assert report.estimates()["pixel change at complete text"].mean > 0


def test_a_lora_by_kohya_and_base_texts_alone(toy: Backbone, kohya_lora: Path) -> None:
    report = audit(toy, kohya_lora, PROMPTS[:2], steps=1).report
    assert report.estimates()["reconstruction"].mean > 0
    assert set(report.values) == {"reconstruction", "edge change at base text", "CLIP-I at base text"}
    assert not report.complete_texts and not report.sweep


def test_an_adapter_that_matches_nothing_is_refused_before_anything_is_sampled(
    toy: Backbone, sdxl_folder: Path, foreign_lora: Path, kohya_lora: Path, nothing_is_sampled: None
) -> None:
    with pytest.raises(BackboneError, match="does not fit this model"):
        audit(toy, foreign_lora, PROMPTS, target_text="sunglasses")
    with pytest.raises(BackboneError, match="the adapter .*by_kohya"):
        audit(load(str(sdxl_folder)), kohya_lora, PROMPTS, target_text="sunglasses")


def test_another_class_of_models(sdxl_folder: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_folder, add_watermarker=False)
    torch.manual_seed(1)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=list(ENDS), init_lora_weights=False))
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    report = audit(load(str(sdxl_folder)), tmp_path, PROMPTS[:2], target_text="sunglasses", steps=1).report
    assert report.settings["class of models"] == "Stable Diffusion XL"
    assert {"reconstruction", "leakage", "CLIP-T gain"} <= set(report.estimates())


def test_a_mask_is_where_the_target_may_act(toy: Backbone, diffusers_lora: Path) -> None:
    everywhere, nowhere = Image.new("L", (8, 8), 255), Image.new("L", (8, 8), 0)
    prompts = [Prompt(prompt.base_text, f"sunglasses, {prompt.base_text}") for prompt in PROMPTS[:2]]
    report = audit(toy, diffusers_lora, prompts, steps=1, masks=[everywhere, nowhere]).report
    assert report.settings["region of the target"] == "masks"
    assert report.values["change outside"][0] == 0 and report.values["leakage"] == [None, 1.0]
    assert report.values["change outside"][1] == report.values["pixel change"][1]


def test_portraits_come_one_at_a_time_with_the_same_numbers(
    toy: Backbone, diffusers_lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = audit(toy, diffusers_lora, PROMPTS, UNRELATED, steps=1, strengths=(2,)).report
    monkeypatch.setattr("spf_lite.audit.sampling.MOST_AT_A_TIME", 1)
    monkeypatch.setattr(auditing, "SWEPT_PROMPTS", 2)
    single = audit(toy, diffusers_lora, PROMPTS, UNRELATED, steps=1, strengths=(2,)).report
    for name, row in whole.values.items():
        assert single.values[name] == pytest.approx(row, abs=1e-3), name
    assert [len(row) for row in single.sweep[0].values.values()] == [2] * 3
    assert single.sweep[0].values["reconstruction"] == pytest.approx(
        whole.sweep[0].values["reconstruction"][:2], abs=1e-3
    )


def test_weights_of_16_bits(toy_folder: Path, diffusers_lora: Path) -> None:
    backbone = load(str(toy_folder), dtype=torch.bfloat16)
    report = audit(backbone, diffusers_lora, PROMPTS[:2], target_text="sunglasses", steps=1).report
    assert report.settings["device and weights"] == "cpu, bfloat16"
    assert {"reconstruction", "leakage", "CLIP-T gain"} <= set(report.estimates())


def test_what_does_not_fit_is_refused_before_anything_is_sampled(
    toy: Backbone, diffusers_lora: Path, nothing_is_sampled: None
) -> None:
    with pytest.raises(ValueError, match="1 masks for 3 prompts"):
        audit(toy, diffusers_lora, PROMPTS, target_text="sunglasses", masks=[Image.new("L", (8, 8))])
    with pytest.raises(PromptTooLongError):
        audit(toy, diffusers_lora, PROMPTS, ["x" * 60])
    with pytest.raises(ValueError, match="expected a finite number"):
        audit(toy, diffusers_lora, PROMPTS, strength=float("nan"))
