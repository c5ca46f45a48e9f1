import json
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spf_lite import cli
from spf_lite.choices import WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.data import encoding as batches
from spf_lite.data.sets.custom_set import CustomSet, CustomSetError
from spf_lite.models.running.sampling import sample
from spf_lite.pure_pairs import reading, repaint, rewrite
from spf_lite.training import stage2
from spf_lite.training.recipes import AFTER, PAIR_STEPS, RECIPES, STEPS, recipe, recipe_name
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"unknown method 'magic': expected one of {', '.join(RECIPES)}"):
        recipe("magic")


def test_a_name_can_change_its_recipe() -> None:
    changed = recipe("spf,weight_enhancement=3,control.threshold=0.5", seed=2)
    assert (changed.weight_enhancement, changed.control.threshold, changed.seed) == (3.0, 0.5, 2)
    assert changed.changed(["weight_enhancement=1", "control.threshold=0.2"]) == recipe("spf", seed=2)
    with pytest.raises(ValueError, match="cannot set 'weight_magic=3'"):
        recipe("spf,weight_magic=3")


def test_a_run_after_others_takes_more_steps_unless_told_otherwise() -> None:
    alone, after = recipe("pure-pairs", seed=4), recipe("pure-pairs", seed=4, after=True)
    assert after == replace(alone, **AFTER["pure-pairs"]) and after.stage2_steps > alone.stage2_steps
    assert recipe_name(after) == recipe_name(alone) == "pure-pairs"
    assert recipe("pure-pairs,stage2_steps=7", after=True).stage2_steps == 7
    assert recipe("naive", after=True) == recipe("naive")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_the_same_number_of_steps_of_the_same_size(name: str) -> None:
    config, naive = recipe(name), recipe("naive")
    assert config.steps == (PAIR_STEPS if name.startswith("pure-pairs") else STEPS)
    assert (config.batch_size, config.rank) == (naive.batch_size, naive.rank)


@pytest.mark.parametrize("name", RECIPES)
def test_the_seed_is_carried_and_nothing_else_changes(name: str) -> None:
    assert [recipe(name, seed).seed for seed in (0, 3, 99)] == [0, 3, 99]
    values = [{**vars(recipe(name, seed)), "seed": None} for seed in (0, 3)]
    assert values[0] == values[1] == {**vars(RECIPES[name]), "seed": None}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str) -> None:
    config = recipe(name, seed=7)
    again = TrainConfig.from_json(config.to_json())
    assert again == config and again.control == config.control
    assert again != recipe(name, seed=8)


def test_naive_is_naive_and_no_two_recipes_are_one() -> None:
    assert recipe("naive").stage2_steps == 0
    weighed = {name: [getattr(recipe(name), weight) for weight in WEIGHTS.values()] for name in RECIPES}
    assert sum(weighed["paper"]) > sum(weighed["naive"])
    configs = [recipe(name) for name in RECIPES]
    assert len(set(map(repr, configs))) == len(configs)
    paper = recipe("paper")
    assert not (paper.weight_output or paper.weight_reconstruction or paper.reference_portraits), "additions of ours"


#: An addition, a replacement and a style.
KINDS = ("sunglasses", "blazer", "pencil-sketch")
#: Every recipe with one kind of target, in turn, and every kind with one recipe of each family.
TRIED = {(name, KINDS[k % 3]) for k, name in enumerate(RECIPES)} | set(
    product(("naive", "prior-preservation", "purecc", "spf", "pure-pairs"), KINDS)
)


@pytest.mark.parametrize(("name", "target"), sorted(TRIED))
def test_one_command_trains_every_recipe_and_plain_diffusers_loads_it(
    name: str,
    target: str,
    toy_samples: Path,
    toy_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "sample", partial(sample, steps=1))
    monkeypatch.setattr(stage2, "SCALE_BATCHES", 1)
    monkeypatch.setattr(repaint, "STEPS", 1)
    monkeypatch.setattr(rewrite, "STEPS", 1)
    monkeypatch.setattr(reading, "DRAWS", (1, 1))
    known, model = recipe(name), toy_folders["v_prediction"]
    few = {
        "stage1_steps": min(known.stage1_steps, 1),
        "stage2_steps": min(known.stage2_steps, 1),
        "batch_size": 2,
        "rank": 2,
        "reference_portraits": min(known.reference_portraits, 1),
        "map_draws": 1,
        "pure_pairs": min(known.pure_pairs, 1),
        "learning_rate": 0.1,  # so that one step shows
    }
    changes = [word for key, value in few.items() for word in ("--set", f"{key}={value}")]
    custom = toy_samples / "custom" / target
    command = ["train", str(custom), str(tmp_path / "run"), "--model", str(model), "--method", name, *changes]
    assert cli.main(command) == 0
    *_, last = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    in_last = known if known.stage2_steps else known.of_stage1()
    terms = {term for term in WEIGHTS if in_last.weight(term)}
    assert set(last) & set(WEIGHTS) == terms
    inputs = torch.ones(1, 4, 8, 8), 500, torch.ones(1, 32, 32)
    with torch.no_grad():
        plain = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
        before = plain.unet(*inputs).sample
        plain.load_lora_weights(tmp_path / "run" / "adapter")
        assert not torch.allclose(plain.unet(*inputs).sample, before, atol=1e-4)


def test_only_the_given_mask_needs_masks(custom_set: CustomSet, toy_folders: dict[str, Path]) -> None:
    given = {name for name in RECIPES if recipe(name).map_source == "given"}
    assert given == {"given-mask", "given-mask-anchors", "pure-pairs-given-mask"}
    config = recipe("given-mask")
    assert config.stage1_steps == 0 and config.denoise_outside == 0 and config.weight_output > 0
    with pytest.raises(CustomSetError, match="needs a mask_file in every line"):
        DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, config)
