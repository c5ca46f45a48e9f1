from dataclasses import replace

import pytest
import torch
from transformers import CLIPTokenizer

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.draws import Draw, draw
from spf_lite.data.prompts import encode_pair

LAST = 1000
#: Stage 2 begins at step 5; a quarter of each batch are references.
CONFIG = TrainConfig(
    stage1_steps=5,
    stage2_steps=5,
    batch_size=8,
    weight_reconstruction=1.0,
    reference_portraits=3,
    reference_share=0.25,
    reconstruction_share=0.5,
)


@pytest.fixture(scope="module")
def custom(tokenizer: CLIPTokenizer) -> list[Item]:
    """Four items that their latents tell apart."""
    pair, nothing = encode_pair(tokenizer, "a person", "sunglasses"), torch.zeros(1)
    return [Item(torch.full((4, 8, 8), float(k)), pair, nothing, nothing, nothing, nothing, nothing) for k in range(4)]


@pytest.fixture(scope="module")
def references(custom: list[Item]) -> list[Item]:
    return [replace(item, latents=item.latents + 100, is_reference=True) for item in custom[:3]]


def contents(drawn: Draw) -> tuple[object, ...]:
    """What a draw says, to be compared."""
    numbers = [item.latents[0, 0, 0].item() for item in drawn.items]
    return numbers, drawn.reconstruction, drawn.noise.tolist(), drawn.timesteps.tolist()


def test_a_step_is_the_same_whatever_came_before(custom: list[Item], references: list[Item]) -> None:
    in_turn = [contents(draw(CONFIG, step, custom, references, LAST)) for step in range(10)]
    torch.manual_seed(123)
    torch.rand(7)
    alone = [contents(draw(CONFIG, step, custom, references, LAST)) for step in (7, 2)]
    assert alone == [in_turn[7], in_turn[2]]
    assert len({str(step) for step in in_turn}) == 10, "no two steps are alike"
    other = contents(draw(replace(CONFIG, seed=1), 7, custom, references, LAST))
    assert all(a != b for a, b in zip(other[2:], in_turn[7][2:], strict=True)), "another run, another noise"


def test_drawing_leaves_the_global_random_state_alone(custom: list[Item], references: list[Item]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw(CONFIG, 7, custom, references, LAST)
    assert torch.equal(torch.rand(3), expected)


def test_stage_one_draws_no_references(custom: list[Item], references: list[Item]) -> None:
    for step in range(10):
        drawn = draw(CONFIG, step, custom, references, LAST)
        share = 0 if step < CONFIG.stage1_steps else 2
        assert drawn.is_reference.tolist() == [False] * (8 - share) + [True] * share
        assert len(drawn.items) == len(drawn.reconstruction) == len(drawn.noise) == len(drawn.timesteps) == 8
        if step < CONFIG.stage1_steps:
            assert contents(drawn) == contents(draw(CONFIG, step, custom, [], LAST)), "they are not even asked for"
    assert not draw(CONFIG, 7, custom, [], LAST).is_reference.any(), "none there, none drawn"


def test_only_references_are_fed_the_base_text_and_only_if_a_term_wants_it(
    custom: list[Item], references: list[Item]
) -> None:
    config = replace(CONFIG, reference_share=0.5)
    draws = [draw(config, step, custom, references, LAST) for step in range(5, 205)]
    assert not any(again for drawn in draws for again in drawn.reconstruction[:4]), "the custom portraits never"
    share = sum(sum(drawn.reconstruction) for drawn in draws) / (4 * len(draws))
    assert share == pytest.approx(config.reconstruction_share, abs=0.06)
    for changes, expected in (
        ({"reconstruction_share": 1.0}, [True] * 4),
        ({"reconstruction_share": 0.0}, [False] * 4),
        ({"reconstruction_share": 1.0, "weight_reconstruction": 0.0}, [False] * 4),
        ({"reconstruction_share": 1.0, "weight_reconstruction": 0.0, "weight_prior": 1.0}, [True] * 4),
    ):
        drawn = draw(replace(config, **changes), 7, custom, references, LAST)
        assert drawn.reconstruction[4:] == expected, changes
        assert torch.equal(drawn.noise, draws[2].noise), "what is drawn besides does not move"


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_make_up_the_batch_and_each_has_its_share(custom: list[Item], references: list[Item], parts: int) -> None:
    whole = draw(replace(CONFIG, reference_share=0.5), 7, custom, references, LAST)
    pieces = [whole.part(k, parts) for k in range(parts)]
    for k, piece in enumerate(pieces):
        assert piece.items == whole.items[k::parts]
        assert piece.is_reference.sum() == 4 // parts or parts == 8
    rows = [row for piece in pieces for row in zip(*contents(piece), strict=True)]  # type: ignore[call-overload]
    expected = list(zip(*contents(whole), strict=True))  # type: ignore[call-overload]
    assert sorted(map(str, rows)) == sorted(map(str, expected)), "every item once, with its own noise and timestep"


def test_every_portrait_and_every_timestep_has_its_turn(custom: list[Item], references: list[Item]) -> None:
    draws = [draw(CONFIG, step, custom, references, LAST) for step in range(5, 105)]
    seen = {number for drawn in draws for number in contents(drawn)[0]}  # type: ignore[attr-defined]
    assert seen == {0, 1, 2, 3, 100, 101, 102}
    timesteps = torch.cat([drawn.timesteps for drawn in draws])
    assert timesteps.min() >= 0 and timesteps.max() < LAST
    assert torch.histc(timesteps.float(), 4, 0, LAST).min() > 0.15 * len(timesteps)
