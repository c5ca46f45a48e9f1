"""Where earlier targets act: where asking for them moves the prediction, in portraits whose text asks."""

from dataclasses import replace

import torch

from spf_lite.data.earlier import EarlierTargets
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs.acting import with_acting

from ..method.conftest import item

BEARD, HAT = LearnedTarget("a beard"), LearnedTarget("a winter hat")


def test_items_that_ask_say_where(toy: Backbone) -> None:
    plain, bearded = item(toy, "a person, smiling"), item(toy, "a person, a beard")
    both = item(toy, "a person, a winter hat, a beard")
    narrow = replace(bearded, latents=bearded.latents[:, :, :4])
    items = [plain, bearded, both, narrow]
    found = with_acting(toy, items, EarlierTargets((BEARD, HAT), "sunglasses", 0.5))
    assert [one.acting is None for one in found] == [True, False, False, False]
    for one, given in zip(found[1:], items[1:], strict=True):
        assert one.acting is not None and one.acting.shape == (1, *given.latents.shape[-2:])
        assert set(one.acting.unique().tolist()) == {0.0, 1.0}
        assert replace(one, acting=None) == given
    (alone,) = (with_acting(toy, [both], EarlierTargets((HAT,), "sunglasses", 0.5))[0].acting,)
    assert alone is not None and found[2].acting is not None
    assert bool((found[2].acting >= alone).all()), "each target adds its places"
    assert with_acting(toy, items, EarlierTargets()) == items


def test_places_are_the_same_again(toy: Backbone) -> None:
    items = [item(toy, "a person, a beard"), item(toy, "a person, a beard, smiling")]
    earlier = EarlierTargets((BEARD,), "sunglasses", 0.5)
    first, again = (
        torch.stack([one.acting for one in with_acting(toy, items, earlier) if one.acting is not None])
        for _ in range(2)
    )
    assert torch.equal(first, again)
