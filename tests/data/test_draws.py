from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.draws import Draw, draw
from spf_lite.data.prompts import encode_pair

NUM_TRAIN_TIMESTEPS = 1000
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
    """The contents of a draw, for comparisons."""
    numbers = [item.latents[0, 0, 0].item() for item in drawn.items]
    return numbers, drawn.reconstruction, drawn.noise.tolist(), drawn.timesteps.tolist()


def test_a_step_is_the_same_whatever_came_before(custom: list[Item], references: list[Item]) -> None:
    in_turn = [contents(draw(CONFIG, step, custom, references, NUM_TRAIN_TIMESTEPS)) for step in range(10)]
    torch.manual_seed(123)
    torch.rand(7)
    alone = [contents(draw(CONFIG, step, custom, references, NUM_TRAIN_TIMESTEPS)) for step in (7, 2)]
    assert alone == [in_turn[7], in_turn[2]]
    assert len({str(step) for step in in_turn}) == 10, "no two steps are alike"
    other = contents(draw(replace(CONFIG, seed=1), 7, custom, references, NUM_TRAIN_TIMESTEPS))
    assert all(a != b for a, b in zip(other[2:], in_turn[7][2:], strict=True)), "another run, another noise"


def test_drawing_leaves_the_global_random_state_alone(custom: list[Item], references: list[Item]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw(CONFIG, 7, custom, references, NUM_TRAIN_TIMESTEPS)
    assert torch.equal(torch.rand(3), expected)


def test_batches_of_stage_one_hold_no_reference_portraits(custom: list[Item], references: list[Item]) -> None:
    for step in range(10):
        drawn = draw(CONFIG, step, custom, references, NUM_TRAIN_TIMESTEPS)
        share = 0 if step < CONFIG.stage1_steps else 2
        assert drawn.is_reference.tolist() == [False] * (8 - share) + [True] * share
        assert len(drawn.items) == len(drawn.reconstruction) == len(drawn.noise) == len(drawn.timesteps) == 8
        if step < CONFIG.stage1_steps:
            assert contents(drawn) == contents(draw(CONFIG, step, custom, [], NUM_TRAIN_TIMESTEPS)), (
                "they are not even counted"
            )
    assert not draw(CONFIG, 7, custom, [], NUM_TRAIN_TIMESTEPS).is_reference.any(), (
        "without reference portraits the batch is the custom set's"
    )


def test_only_reference_portraits_are_reconstruction_items_and_only_if_a_term_needs_them(
    custom: list[Item], references: list[Item]
) -> None:
    config = replace(CONFIG, reference_share=0.5)
    draws = [draw(config, step, custom, references, NUM_TRAIN_TIMESTEPS) for step in range(5, 205)]
    assert not any(again for drawn in draws for again in drawn.reconstruction[:4]), "custom portraits never are"
    share = sum(sum(drawn.reconstruction) for drawn in draws) / (4 * len(draws))
    assert share == pytest.approx(config.reconstruction_share, abs=0.06)
    cases: tuple[tuple[dict[str, Any], list[bool]], ...] = (
        ({"reconstruction_share": 1.0}, [True] * 4),
        ({"reconstruction_share": 0.0}, [False] * 4),
        ({"reconstruction_share": 1.0, "weight_reconstruction": 0.0}, [False] * 4),
        ({"reconstruction_share": 1.0, "weight_reconstruction": 0.0, "weight_prior": 1.0}, [True] * 4),
    )
    for changes, expected in cases:
        drawn = draw(replace(config, **changes), 7, custom, references, NUM_TRAIN_TIMESTEPS)
        assert drawn.reconstruction[4:] == expected, changes
        assert torch.equal(drawn.noise, draws[2].noise), "noise and timesteps stay the same"


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_make_up_the_batch_and_each_has_its_share(custom: list[Item], references: list[Item], parts: int) -> None:
    whole = draw(replace(CONFIG, reference_share=0.5), 7, custom, references, NUM_TRAIN_TIMESTEPS)
    pieces = [whole.part(k, parts) for k in range(parts)]
    for k, piece in enumerate(pieces):
        assert piece.items == whole.items[k::parts]
        assert piece.is_reference.sum() == 4 // parts or parts == 8
    rows = [row for piece in pieces for row in zip(*contents(piece), strict=True)]
    expected = list(zip(*contents(whole), strict=True))
    assert sorted(map(str, rows)) == sorted(map(str, expected)), "every item once, with its own noise and timestep"


def test_every_portrait_and_timestep_is_drawn(custom: list[Item], references: list[Item]) -> None:
    draws = [draw(CONFIG, step, custom, references, NUM_TRAIN_TIMESTEPS) for step in range(5, 105)]
    seen = {number for drawn in draws for number in contents(drawn)[0]}  # type: ignore[attr-defined]
    assert seen == {0, 1, 2, 3, 100, 101, 102}
    timesteps = torch.cat([drawn.timesteps for drawn in draws])
    assert timesteps.min() >= 0 and timesteps.max() < NUM_TRAIN_TIMESTEPS
    assert torch.histc(timesteps.float(), 4, 0, NUM_TRAIN_TIMESTEPS).min() > 0.15 * len(timesteps)


def former_choice(
    config: TrainConfig, step: int, custom: int, references: int
) -> tuple[list[int], list[int], Any, Any]:
    """Indices, noise and timesteps as they were drawn when the share was rounded (commit d3c6e87)."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    own = round(config.batch_size * config.reference_share) if step >= config.stage1_steps and references else 0
    chosen = torch.randint(custom, (config.batch_size - own,), generator=generator).tolist()
    drawn = torch.randint(max(1, references), (own,), generator=generator).tolist()
    torch.rand(own, generator=generator)
    noise = torch.randn(config.batch_size, 4, 8, 8, generator=generator)
    return chosen, drawn, noise, torch.randint(NUM_TRAIN_TIMESTEPS, (config.batch_size,), generator=generator)


@pytest.mark.parametrize(
    ("batch_size", "share"), [(8, 0.25), (8, 0.5), (8, 0.0), (8, 1.0), (1, 0.0), (10, 0.3), (100, 0.29), (100, 0.55)]
)
def test_whole_shares_are_drawn_as_they_always_were(
    batch_size: int, share: float, custom: list[Item], references: list[Item]
) -> None:
    config = replace(CONFIG, batch_size=batch_size, reference_share=share)
    for step in range(12):
        chosen, drawn, noise, timesteps = former_choice(config, step, len(custom), len(references))
        now = draw(config, step, custom, references, NUM_TRAIN_TIMESTEPS)
        assert [item.latents[0, 0, 0].item() for item in now.items] == [*chosen, *(100 + k for k in drawn)]
        assert torch.equal(now.noise, noise) and torch.equal(now.timesteps, timesteps)


@pytest.mark.parametrize(("batch_size", "share"), [(1, 0.5), (1, 0.25), (3, 0.5), (2, 0.2)])
def test_a_share_that_is_no_whole_number_is_met_on_average(
    batch_size: int, share: float, custom: list[Item], references: list[Item]
) -> None:
    config = replace(CONFIG, batch_size=batch_size, reference_share=share)
    draws = [draw(config, step, custom, references, NUM_TRAIN_TIMESTEPS) for step in range(5, 805)]
    counts = [int(drawn.is_reference.sum()) for drawn in draws]
    assert set(counts) == {int(batch_size * share), int(batch_size * share) + 1}
    assert sum(counts) / len(counts) == pytest.approx(batch_size * share, abs=0.06)
    again = [draw(config, step, custom, references, NUM_TRAIN_TIMESTEPS) for step in (700, 9)]
    assert [contents(drawn) for drawn in again] == [contents(draws[695]), contents(draws[4])], "by the step alone"


@pytest.fixture(scope="module")
def two_sizes(custom: list[Item], references: list[Item]) -> tuple[list[Item], list[Item]]:
    """Three square items and an upright one; two square reference portraits and an upright one."""

    def upright(item: Item) -> Item:
        return replace(item, latents=item.latents[..., :6])

    return [*custom[:3], upright(custom[3])], [*references[:2], upright(references[2])]


def test_a_batch_holds_one_bucket_by_the_step_alone(two_sizes: tuple[list[Item], list[Item]]) -> None:
    draws = [draw(CONFIG, step, *two_sizes, NUM_TRAIN_TIMESTEPS) for step in range(400)]
    for drawn in draws:
        sizes = {item.latents.shape for item in drawn.items}
        assert sizes == {drawn.noise.shape[1:]} and len(drawn.items) == 8
    upright = [drawn.noise.shape[-1] == 6 for drawn in draws]
    assert sum(upright) / len(upright) == pytest.approx(1 / 4, abs=0.06), "as often as its share of the portraits"
    assert all(drawn.is_reference.sum() == 2 for drawn in draws[5:]), "every bucket has reference portraits"
    seen = {item.latents[0, 0, 0].item() for drawn in draws for item in drawn.items}
    assert seen == {0, 1, 2, 3, 100, 101, 102}
    assert contents(draw(CONFIG, 123, *two_sizes, NUM_TRAIN_TIMESTEPS)) == contents(draws[123])


ANCHORED = replace(CONFIG, anchor_share=0.5, anchor_empty=0.5, anchor_own=0.5)
EMPTY = torch.full((1,), -7.0)


def drawn_anchors(drawn: Draw) -> list[Item]:
    """The anchors of a batch of eight: they come last."""
    return drawn.items[4:]


def test_anchors_have_their_share_of_every_batch(custom: list[Item], references: list[Item]) -> None:
    kinds: Counter[tuple[bool, bool]] = Counter()
    for step in range(200):
        whole = draw(ANCHORED, step, custom, references, NUM_TRAIN_TIMESTEPS, EMPTY)
        assert whole.reconstruction[4:] == [True] * 4, "half of eight items, in both stages"
        assert not any(whole.reconstruction[:4]) or step >= 5
        kinds.update((bool(item.is_reference), torch.equal(item.base, EMPTY)) for item in drawn_anchors(whole))
    assert sum(kinds.values()) == 800 and kinds[True, True] + kinds[False, True] == 400, "half of them untold"
    own = (kinds[False, False] + kinds[False, True]) / 800
    assert abs(own - 0.5) < 0.06, "half of them on the set's own portraits, by chance"


def test_without_reference_portraits_all_anchors_are_of_the_set(custom: list[Item]) -> None:
    whole = draw(ANCHORED, 0, custom, [], NUM_TRAIN_TIMESTEPS, EMPTY)
    assert not any(item.is_reference for item in drawn_anchors(whole))


def test_anchors_with_the_empty_text_need_it(custom: list[Item]) -> None:
    with pytest.raises(ValueError, match="empty text need its embedding"):
        draw(ANCHORED, 0, custom, [], NUM_TRAIN_TIMESTEPS)
    told = replace(ANCHORED, anchor_empty=0.0)
    assert len(draw(told, 0, custom, [], NUM_TRAIN_TIMESTEPS).items) == 8


def test_what_anchors_leave_is_shared_out_as_before(custom: list[Item], references: list[Item]) -> None:
    whole = draw(ANCHORED, 7, custom, references, NUM_TRAIN_TIMESTEPS, EMPTY)
    assert [item.is_reference for item in whole.items[:4]] == [False, False, False, True], "a quarter of four"
    assert len(whole.noise) == len(whole.timesteps) == 8


def test_a_run_without_anchors_draws_what_it_always_drew(custom: list[Item], references: list[Item]) -> None:
    plain = contents(draw(CONFIG, 7, custom, references, NUM_TRAIN_TIMESTEPS))
    assert contents(draw(CONFIG, 7, custom, references, NUM_TRAIN_TIMESTEPS, EMPTY)) == plain


def test_timesteps_are_uniform_or_logit_normal(custom: list[Item]) -> None:
    config = replace(CONFIG, batch_size=4000, reference_portraits=0, weight_reconstruction=0.0)
    uniform, middle = (
        draw(replace(config, timesteps=name), 0, custom, [], NUM_TRAIN_TIMESTEPS).timesteps
        for name in ("uniform", "logit-normal")
    )
    assert uniform.dtype == middle.dtype == torch.int64
    share = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    assert torch.quantile(uniform / 1000, share) == pytest.approx(share, abs=0.03)
    # Quantiles of the standard normal distribution, through the logistic function.
    normal = torch.distributions.Normal(0.0, 1.0).icdf(share).sigmoid()
    assert torch.quantile(middle / 1000, share) == pytest.approx(normal, abs=0.03)
    assert middle.min() >= 0 and middle.max() < NUM_TRAIN_TIMESTEPS


def test_a_rounded_share_of_one_is_the_last_timestep(custom: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, timesteps="logit-normal", reference_portraits=0, weight_reconstruction=0.0)
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **of: randn(*size, **of).abs() + 200)
    assert draw(config, 0, custom, [], NUM_TRAIN_TIMESTEPS).timesteps.tolist() == [999] * 8
