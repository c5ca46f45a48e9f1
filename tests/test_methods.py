import pytest

from spf_lite.config import WEIGHTS, TrainConfig
from spf_lite.methods import RECIPES, STEPS, recipe


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"unknown method 'magic': expected one of {', '.join(RECIPES)}"):
        recipe("magic")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_the_same_number_of_steps_of_the_same_size(name: str) -> None:
    config, naive = recipe(name), recipe("naive")
    assert config.stage1_steps + config.stage2_steps == STEPS
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
