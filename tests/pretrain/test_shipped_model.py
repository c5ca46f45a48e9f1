"""The model that ships: it loads without us, it is small, its card tells the truth, and it does what it is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import FINAL_HEADS, Judge, head_of, load_judge
from spf_lite.models.adapters.learned import targets_of
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.models.specification import specification_of
from spf_lite.pretrain.run import PARTS
from spf_lite.tiny_world.portraits import FINAL_TARGETS, TARGETS, Portrait, describe
from spf_lite.tiny_world.rendering import render
from spf_lite.training.run.export import learned_target

DATA = Path(__file__).parents[2] / "data_samples"
FOLDER, ADAPTERS = DATA / "tiny-portraits", DATA / "adapters"
METHODS = ("naive", "spf")

pytestmark = pytest.mark.skipif(
    not (FOLDER / "model_index.json").is_file(), reason="the shipped model is not there yet (spf-lite pretrain all)"
)
needs_adapters = pytest.mark.skipif(not ADAPTERS.is_dir(), reason="the shipped adapters are not there yet")

#: Eight people whose backgrounds and clothes' colours no two have in common.
PEOPLE = [
    Portrait("bun", "red", "pale", "smiling", "hoodie", "blue", "yellow"),
    Portrait("afro", "black", "dark", "serious", "sweater", "white", "green"),
    Portrait("curly", "blonde", "tan", "sad", "t-shirt", "red", "blue"),
    Portrait("bob", "brown", "brown", "smiling", "overalls", "yellow", "pink"),
    Portrait("long", "gray", "pale", "shouting", "v-neck", "green", "purple"),
    Portrait("short", "black", "tan", "smiling", "hoodie", "purple", "white"),
    Portrait("wavy", "red", "dark", "serious", "sweater", "black", "gray"),
    Portrait("mohawk", "brown", "brown", "sad", "t-shirt", "blue", "green", glasses="yes"),
]


@pytest.fixture(scope="module")
def shipped() -> Backbone:
    return load(str(FOLDER))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(FOLDER / "judge")


@pytest.fixture(scope="module")
def sampled(shipped: Backbone) -> list[Image.Image]:
    return sample(shipped, [describe(portrait) for portrait in PEOPLE], seeds=range(len(PEOPLE)))


def test_plain_diffusers_loads_it() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER)
    assert all(part.dtype == torch.float32 for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a person, smiling", num_inference_steps=1).images[0]
    assert image.size == (128, 128)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 40e6


def test_the_card_says_what_a_card_must_say() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    sections = {line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")}
    assert {"Data", "Training", "Limits", "Licence and credit"} <= sections
    assert "Pablo Stanley" in card and "MIT" in card
    named = [line.split("`")[1] for line in card.splitlines() if line.startswith("| `")]
    assert len(named) >= 6
    assert not [name for name in named if not (FOLDER / name).exists()], "files that the card names"


def test_the_log_has_every_part_from_beginning_to_end() -> None:
    log = [json.loads(line) for line in (FOLDER / "training-log.jsonl").read_text().splitlines()]
    assert {line["part"] for line in log} == set(PARTS)
    for part in PARTS:
        lines = [line for line in log if line["part"] == part]
        steps = [line["step"] for line in lines]
        assert steps == sorted(steps) and steps[0] == 0 and steps[-1] > 100
        assert all(np.isfinite(line["loss"]) for line in lines)
        assert lines[-1]["loss"] < lines[0]["loss"]


def test_portraits_follow_their_prompts(sampled: list[Image.Image], judge: Judge) -> None:
    seen = judge.attributes(sampled)
    right = [
        answer["background"] == portrait.background and answer["clothes_color"] == portrait.clothes_color
        for portrait, answer in zip(PEOPLE, seen, strict=True)
    ]
    assert sum(right) >= 6, [(a["background"], a["clothes_color"]) for a in seen]


def test_it_does_not_know_the_targets(sampled: list[Image.Image], judge: Judge) -> None:
    verdict = judge(sampled)
    assert sum(int(verdict.shows(target).sum()) for target in TARGETS) <= 1


def test_the_autoencoder_gives_back_what_it_was_given(shipped: Backbone, judge: Judge) -> None:
    from spf_lite.models.codec import decode_latents, encode_images, to_tensor
    from spf_lite.tiny_world.rendering import render

    images = to_tensor([render(portrait) for portrait in PEOPLE])
    with torch.no_grad():
        again = decode_latents(shipped.pipe, encode_images(shipped.pipe, images)).clamp(0, 1)
    assert (again - images).abs().mean() < 0.03
    pictures = [Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()) for image in again]
    for portrait, answer in zip(PEOPLE, judge.attributes(pictures), strict=True):
        assert answer["background"] == portrait.background and answer["clothes_color"] == portrait.clothes_color


def test_clip_finds_related_phrases_near(shipped: Backbone) -> None:
    near, far = shipped.clip.phrase_distances(["red hair", "gray background"], "pink hair").tolist()
    assert near < far
    for target in TARGETS.values():
        distances = shipped.clip.phrase_distances(["gray background", "brown skin", target.text], target.text)
        assert distances[2] < 1e-5 and (distances[:2] > 0.2).all() and (distances <= 2).all()


def test_clip_knows_a_picture_of_a_phrase(shipped: Backbone) -> None:
    from spf_lite.models.codec import to_tensor
    from spf_lite.tiny_world.rendering import render

    images = to_tensor([render(portrait) for portrait in PEOPLE])
    texts = shipped.clip.text_features([describe(portrait) for portrait in PEOPLE])
    best = (shipped.clip.image_features(images) @ texts.T).argmax(dim=1).tolist()
    assert sum(i == j for i, j in enumerate(best)) >= 7


@needs_adapters
def test_there_is_an_adapter_of_both_methods_for_every_folder() -> None:
    targets = {path.name for path in ADAPTERS.iterdir() if path.is_dir()}
    assert targets and targets <= set(TARGETS)
    for target in targets:
        assert {path.name for path in (ADAPTERS / target).iterdir() if path.is_dir()} >= set(METHODS)


@needs_adapters
def test_adapters_of_pure_pairs_name_their_target_for_runs_on_top_of_them() -> None:
    folders = sorted(ADAPTERS.glob("*/pure-pairs"))
    for folder in folders:
        assert targets_of(folder) == [learned_target(CustomSet.load(DATA / "custom" / folder.parent.name, "silent"))]
    assert folders


@needs_adapters
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_adapter_loads_in_plain_diffusers_and_changes_the_picture(target: str, method: str) -> None:
    folder = ADAPTERS / target / method
    if not folder.is_dir():
        pytest.skip(f"no adapter for {target} is shipped")
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    prompt = [f"{describe(PEOPLE[0])}, {TARGETS[target].text}"]
    plain_diffusers = Backbone(pipe, specification_of(str(FOLDER)))
    plain = sample(plain_diffusers, prompt, seeds=[0], steps=8)[0]
    pipe.load_lora_weights(folder)
    tuned = sample(plain_diffusers, prompt, seeds=[0], steps=8)[0]
    change = np.abs(np.asarray(plain, dtype=int) - np.asarray(tuned, dtype=int))
    assert change.max() > 30 and change.mean() > 0.5


@pytest.mark.parametrize("target", FINAL_TARGETS)
def test_the_judge_of_the_last_test_tells_its_targets_from_people_without(target: str) -> None:
    judge = load_judge(load(), target)
    assert judge.net.answers == FINAL_HEADS
    without, shown = judge([render(p) for p in PEOPLE]), judge([render(p.with_targets(target)) for p in PEOPLE])
    assert not without.shows(target).any() and shown.shows(target).all()
    unrelated = {"skin", "expression", "background"} - {head_of(target)}
    for person, seen in zip(PEOPLE, shown.attributes, strict=True):
        assert all(seen[name] == getattr(person, name) for name in unrelated)
