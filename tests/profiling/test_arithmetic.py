import pytest

from spf_lite.models.backbone import Backbone
from spf_lite.paths import DATA_SAMPLES
from spf_lite.profiling import cards
from spf_lite.profiling.arithmetic import STEPS, guided_operations, run_arithmetic, step_operations
from spf_lite.profiling.cards import CARDS, Card
from spf_lite.profiling.cost import DUAL, ENHANCED, read_costs
from spf_lite.profiling.memory import sd15_on_meta
from spf_lite.training.recipes import recipe


def test_a_second_path_is_one_more_forward_pass(shapes: Backbone) -> None:
    plain, dual = (step_operations(shapes, losses, 8) for losses in (None, DUAL))
    forward = guided_operations(shapes, 8) / 2
    assert 2 * forward < plain < 3 * forward, "frozen weights need no gradient of their own"
    assert 0.7 * forward < dual - plain <= forward, "what precedes the text is shared"
    assert step_operations(shapes, DUAL, 8, checkpointing=True) - dual == pytest.approx(forward, rel=0.01)
    assert step_operations(shapes, ENHANCED, 8) > dual


def test_places_cost_alike(shapes: Backbone) -> None:
    small, large = (guided_operations(shapes, side) for side in (8, 16))
    assert 4 <= large / small < 5, "attention between places costs more than that"


def test_a_run_is_its_steps_and_its_portraits(shapes: Backbone) -> None:
    config = recipe("pure-pairs").changed(["layers=cross-attention", "batch_size=4"])
    counted = run_arithmetic(shapes, config, 64)
    assert counted.step == 4 * step_operations(shapes, config, 8) and counted.steps == config.steps
    assert counted.portrait == STEPS * guided_operations(shapes, 8)
    assert counted.portraits == config.reference_portraits + 2 * config.pure_pairs
    assert counted.training == counted.step * counted.steps and counted.painting == counted.portrait * counted.portraits
    assert run_arithmetic(shapes, config.changed(["rewrite_limit=0"]), 64).portraits == 128 + 96
    naive = run_arithmetic(shapes, recipe("naive"), 64)
    assert naive.portraits == 0 and naive.step == 8 * step_operations(shapes, None, 8)


@pytest.mark.slow
def test_the_efficiency_of_a_card_is_that_of_the_published_run(toy: Backbone) -> None:
    backbone = sd15_on_meta(toy)
    operations = cards.PUBLISHED_STEPS * guided_operations(backbone, 64)
    reached = operations / cards.PUBLISHED_SECONDS / cards.PUBLISHED_PEAK
    assert pytest.approx(reached, rel=0.01) == cards.EFFICIENCY
    # The same counts, against steps that were measured on a processor.
    measured = read_costs(DATA_SAMPLES / "results" / "cost-sd15-size.json")
    plain = step_operations(backbone, None, 64)
    for losses, variant in ((DUAL, "(b) dual path"), (ENHANCED, "(c) dual path, enhancement")):
        expected = step_operations(backbone, losses, 64) / plain
        assert measured[variant].ratio == pytest.approx(expected, rel=0.15), variant


def test_cards_say_their_time_where_their_peak_is_known() -> None:
    assert CARDS["T4"].seconds(65e12 * cards.EFFICIENCY) == pytest.approx(1)
    assert str(CARDS["T4"]) == "a T4 of 16 GB"
    with pytest.raises(ValueError, match="card: how fast it computes is not known"):
        Card("card", 8).seconds(1)
