import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.widgets import AttentionExplorer
from spf_lite.widgets.explorer_data import attention_items

TOKENS = ["start", "red", "hair", "end", "PAD × 28"]


def _item(label: str = "Ada", tokens: list[str] | None = None, heads: int = 2, **changes: object) -> dict[str, Any]:
    tokens = TOKENS if tokens is None else tokens
    maps = np.random.default_rng(len(label)).random((2, 3, heads, len(tokens), 4, 4))
    item: dict[str, Any] = {
        "label": label,
        "image": Image.new("RGB", (32, 32), "gray"),
        "tokens": tokens,
        "timesteps": [100, 700],
        "layers": ["down 0.0", "up 2.0", "up 2.1"],
        "maps": maps / maps.sum(axis=3, keepdims=True) if len(tokens) else maps,
    }
    return {**item, **changes}


def test_starts_at_the_first_word_and_the_mean_of_everything() -> None:
    explorer = AttentionExplorer([_item(), _item("Benny")])
    assert (explorer.portrait, explorer.token, explorer.timestep) == ("Ada", 1, 100)
    assert (explorer.layer, explorer.head, explorer.opacity) == ("all layers", "mean", 0.75)
    assert explorer.layers == ["all layers", "down 0.0", "up 2.0", "up 2.1"]
    assert explorer.heads == ["mean", "1", "2"]


def test_starting_values_can_be_given() -> None:
    explorer = AttentionExplorer([_item(), _item("Benny")], portrait="Benny", token=3, head="2", layer="up 2.0")
    assert (explorer.portrait, explorer.token, explorer.head, explorer.layer) == ("Benny", 3, "2", "up 2.0")


@pytest.mark.parametrize(("layer", "layers"), [("all layers", [0, 1, 2]), ("up 2.0", [1])])
@pytest.mark.parametrize(("head", "heads"), [("mean", [0, 1]), ("2", [1])])
@pytest.mark.parametrize(("timestep", "t"), [(100, 0), (700, 1)])
def test_the_map_is_the_mean_over_what_is_chosen(
    layer: str, layers: list[int], head: str, heads: list[int], timestep: int, t: int
) -> None:
    item = _item()
    explorer = AttentionExplorer([item], layer=layer, head=head, timestep=timestep, token=2)
    expected = item["maps"][t][layers][:, heads][:, :, 2].mean(axis=(0, 1))
    assert explorer.map() == pytest.approx(expected, abs=item["maps"].max() / 100)


def test_the_tokens_share_all_attention() -> None:
    explorer = AttentionExplorer([_item()])
    total = np.zeros((4, 4))
    for token in range(len(TOKENS)):
        explorer.token = token
        total += explorer.map()
    assert total == pytest.approx(1, abs=0.02)


def test_the_token_stays_where_the_new_text_is_long_enough() -> None:
    explorer = AttentionExplorer([_item(), _item("Benny"), _item("Cleo", tokens=["start", "end"])], token=2)
    explorer.portrait = "Benny"
    assert explorer.token == 2
    explorer.portrait = "Cleo"
    assert explorer.token == 0


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("portrait", "Cleo", "unknown portrait 'Cleo': expected one of Ada"),
        ("timestep", 7, "unknown timestep 7: expected one of 100, 700"),
        ("layer", "mid", "unknown layer 'mid': expected one of all layers, down 0.0"),
        ("head", "3", "unknown head '3': expected one of mean, 1, 2"),
        ("token", 5, "token=5: expected 0 to 4"),
        ("token", -1, "token=-1"),
        ("opacity", 1.5, "opacity"),
    ],
)
def test_impossible_values_are_refused(trait: str, value: object, message: str) -> None:
    explorer = AttentionExplorer([_item()])
    before = getattr(explorer, trait)
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items is empty"),
        ([{"label": "Ada"}], r"items\[0\] lacks image, layers, maps, timesteps, tokens"),
        ([_item(), _item()], "repeats the label 'Ada'"),
        ([_item(), _item("Benny", layers=["a", "b", "c"])], r"items\[1\] has layers"),
        ([_item(tokens=[])], "tokens is empty"),
        ([_item(maps=np.zeros((2, 3, 2, 4, 4, 4)))], r"expected \(2, 3, any, 5, any, any\)"),
        ([_item(maps=np.full((2, 3, 2, 5, 4, 4), 1.1))], "maps has values from 1.1"),
        ([_item(), _item("Benny", heads=3)], r"items\[1\] has 3 heads, but items\[0\] has 2"),
    ],
)
def test_bad_items_are_refused_with_their_place(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionExplorer(items)


def test_a_usual_item_is_small() -> None:
    maps = np.random.default_rng(0).random((3, 3, 4, 20, 16, 16)) / 20
    item = _item(tokens=[f"word {k}" for k in range(20)], timesteps=[1, 2, 3], maps=maps)
    size = len(json.dumps(AttentionExplorer([item]).get_state("items")))
    assert 184_320 < size < 210_000, "one character for each value, and little else"


def test_viewers_without_javascript_get_a_picture() -> None:
    explorer = AttentionExplorer([_item()])
    bundle = explorer._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert explorer.snapshot().size == (2 * 32 + 4, 32)
    before = explorer.snapshot().tobytes()
    explorer.token = 2
    assert explorer.snapshot().tobytes() != before, "the picture shows the current state"


def test_repr_is_stable() -> None:
    assert repr(AttentionExplorer([_item()])) == (
        "AttentionExplorer(1 items, portrait='Ada', token='red', layer='all layers', head='mean', timestep=100)"
    )


def test_items_come_from_the_reference(toy: Backbone) -> None:
    texts = ["a person, red hair", "a person, blue hoodie"]
    plain = attention_items(toy, texts, [0, 1], [100, 700])
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter.fill_(0.5)
    again = attention_items(toy, texts, [0, 1], [100, 700], labels=["Ada", "Ben"])
    assert [item["label"] for item in plain] == ["a person, red hair (seed 0)", "a person, blue hoodie (seed 1)"]
    assert [item["label"] for item in again] == ["Ada", "Ben"]
    for one, other in zip(plain, again, strict=True):
        assert np.array_equal(one["maps"], other["maps"]), "an adapter makes no difference"
    first = plain[0]
    words = len(first["tokens"]) - 3
    assert first["tokens"] == ["start", "a", "person", ",", "red", "hair", "end", f"PAD × {30 - words}"]
    assert first["maps"].shape == (2, len(first["layers"]), 2, len(first["tokens"]), 8, 8)
    assert first["maps"].sum(axis=3) == pytest.approx(1, abs=1e-5), "padding is one token"
    assert first["image"].size == (64, 64)
    assert AttentionExplorer(plain).map().shape == (8, 8)


@pytest.mark.parametrize(
    ("seeds", "timesteps", "message"),
    [([0, 1], [100], "1 texts but 2 seeds"), ([0], [], "expected one or more"), ([0], [-1], "from 0 to 999")],
)
def test_what_does_not_fit_is_refused(toy: Backbone, seeds: list[int], timesteps: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_items(toy, ["a person"], seeds, timesteps)
