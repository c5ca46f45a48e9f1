from dataclasses import replace

import pytest
import torch

from spf_lite.data.texts import empty_text
from spf_lite.method.contrast import RIDGE, contrast_directions
from spf_lite.models.backbone import Backbone

from .conftest import item

TEXTS = ("a person, red curly hair, blue hoodie", "a person, smiling", "a person, gray bun hair", "a person, sad")


def test_rows_are_uncorrelated_over_base_texts_and_fall_with_their_contrast(toy: Backbone) -> None:
    items = [item(toy, text) for text in TEXTS]
    rows = contrast_directions(items, empty_text(toy), rank=5)
    assert rows.shape == (5, 32) and rows.dtype == torch.float32
    covariance = torch.cov(torch.cat([*(one.base for one in items), empty_text(toy)]).double().T, correction=0)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(32)
    found = rows.double() @ covariance @ rows.double().T
    sizes = found.diagonal().sqrt()
    assert torch.allclose(found, sizes.square().diag(), atol=1e-4) and float(sizes[0]) == pytest.approx(1, abs=1e-4)
    assert (sizes.diff() < 0).all() and (sizes > 0).all()


def test_a_direction_in_which_the_target_does_not_stand_out_is_left_alone(toy: Backbone) -> None:
    rows = contrast_directions([item(toy, text) for text in TEXTS], empty_text(toy), rank=32)
    assert rows[0].abs().sum() > 0 and rows[-1].abs().sum() == 0


def test_no_direction_has_more_contrast_than_the_first(toy: Backbone) -> None:
    items = [item(toy, text) for text in TEXTS]
    rows = contrast_directions(items, empty_text(toy), rank=3)
    base = torch.cat([*(one.base for one in items), empty_text(toy)])

    def contrast(row: torch.Tensor) -> float:
        told = torch.cat([one.complete[one.pair.target.start : one.pair.target.stop] for one in items])
        moved = torch.cat([(one.complete - one.base)[one.pair.target.stop :] for one in items])
        added = torch.cat([told - base.mean(dim=0), moved])
        return float((added @ row).square().mean() / (base @ row).var())

    found = [contrast(row) for row in rows]
    assert found[0] > found[1] > found[2] > 0
    generator = torch.Generator().manual_seed(0)
    assert found[0] > 3 * max(contrast(torch.randn(32, generator=generator)) for _ in range(50))


def test_the_first_row_tells_the_word(toy: Backbone) -> None:
    items = [item(toy, text) for text in TEXTS]
    row = contrast_directions(items, empty_text(toy), rank=1)[0]
    base = torch.cat([*(one.base for one in items), empty_text(toy)]) @ row
    asked = torch.cat([one.complete @ row for one in items]) - base.mean()
    assert asked.abs().max() > (base - base.mean()).abs().max(), "some token of the complete text stands out"


def test_more_rows_than_dimensions_or_no_texts_are_refused(toy: Backbone) -> None:
    with pytest.raises(ValueError, match="rank=33"):
        contrast_directions([item(toy)], empty_text(toy), rank=33)
    with pytest.raises(ValueError, match="no texts"):
        contrast_directions([], empty_text(toy), rank=1)


def test_a_base_text_counts_once_however_often_it_stands_there(toy: Backbone) -> None:
    items = [item(toy, text) for text in TEXTS]
    forms = [replace(one, complete=items[0].complete, pair=replace(items[0].pair, base_text="x")) for one in items[:1]]
    rows = contrast_directions([*items, *forms, *forms], empty_text(toy), rank=2)
    once = contrast_directions([*items, *forms, *items[:1]], empty_text(toy), rank=2)
    assert torch.allclose(rows.abs(), once.abs(), atol=1e-4), "what is added is the same, and so is the covariance"
