import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.data.encoding import custom_items
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.measures.maps import map_auc
from spf_lite.method.control_map import combine
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.options import ControlMapOptions
from spf_lite.widgets import ControlMapExplorer
from spf_lite.widgets.content.map_encoding import checked, heat, pack, pack_scaled, unpack, unpack_scaled
from spf_lite.widgets.explorer_data import control_map_items, layer_label

PHRASES = ["a person", "red hair", "blue hoodie"]


def _item(label: str = "Ada", side: int = 4, phrases: list[str] | None = None, **changes: object) -> dict[str, Any]:
    phrases = PHRASES if phrases is None else phrases
    draw = np.random.default_rng(len(label))
    item: dict[str, Any] = {
        "label": label,
        "image": Image.new("RGB", (32, 32), "gray"),
        "phrases": phrases,
        "distances": [0.5 + 0.1 * p for p in range(len(phrases))],
        "timesteps": [100, 300],
        "layers": ["all layers", "up 2.0"],
        "difference": draw.random((2, side, side)),
        "phrase_maps": draw.random((2, 2, len(phrases), side, side)),
    }
    return {**item, **changes}


def test_starts_at_the_first_of_everything_and_the_options_given() -> None:
    options = ControlMapOptions(0.5, smoothing=5, rescale=False, threshold=0.1, softness=0.2, subtraction="sum")
    explorer = ControlMapExplorer([_item("Ada"), _item("Benny")], options=options)
    assert (explorer.portrait, explorer.timestep, explorer.layer) == ("Ada", 100, "all layers")
    assert explorer.distances == pytest.approx([0.5, 0.6, 0.7])
    assert explorer.options() == options


def test_starting_values_can_be_given() -> None:
    explorer = ControlMapExplorer(
        [_item("Ada"), _item("Benny", phrases=["x"])], portrait="Benny", distances=[1.5], weight=0.3
    )
    assert (explorer.portrait, explorer.distances, explorer.weight) == ("Benny", [1.5], 0.3)


def test_one_call_hands_the_thresholds_to_the_trainer() -> None:
    explorer = ControlMapExplorer([_item()], options=ControlMapOptions(smoothing=5))
    explorer.threshold, explorer.softness, explorer.weight = 0.25, 0.5, 0.75
    explorer.subtraction, explorer.rescale = "sum", False
    config = TrainConfig(stage2_steps=7, control=ControlMapOptions(threshold=0.9))
    applied = explorer.apply(config)
    assert applied.control == ControlMapOptions(0.75, 5, False, 0.25, 0.5, "sum")
    assert replace(applied, control=config.control) == config, "nothing else changes"


def test_the_map_is_graded_where_the_true_region_is_known() -> None:
    region = np.zeros((4, 4))
    region[:2] = 1
    explorer = ControlMapExplorer([_item("Ada", region=region), _item("Benny")])
    assert explorer.auc() == map_auc(explorer.map(), region)
    explorer.portrait = "Benny"
    assert explorer.auc() is None
    with pytest.raises(ValueError, match=r"items\[0\]: region has shape \(2, 2\), expected \(4, 4\)"):
        ControlMapExplorer([_item(region=np.ones((2, 2)))])


@pytest.mark.parametrize("timestep", [100, 300])
@pytest.mark.parametrize("layer", ["all layers", "up 2.0"])
def test_the_map_is_the_librarys_own(timestep: int, layer: str) -> None:
    item = _item()
    explorer = ControlMapExplorer([item], timestep=timestep, layer=layer, threshold=0.2, softness=0.4)
    explorer.distances = [0.0, 2.0, 0.3]
    t, number = item["timesteps"].index(timestep), item["layers"].index(layer)
    difference = torch.tensor(np.rint(item["difference"][t] * 255) / 255)[None, None]
    maps = torch.tensor(np.rint(item["phrase_maps"][t, number] * 255) / 255)[None]
    expected = combine(difference, maps, torch.tensor([[0.0, 2.0, 0.3]], dtype=torch.float64), explorer.options())
    assert explorer.map() == pytest.approx(expected[0, 0].numpy(), abs=1e-12)


def test_distances_follow_the_portrait_and_can_be_reset() -> None:
    explorer = ControlMapExplorer([_item("Ada"), _item("Benny", phrases=["a person", "smiling"])])
    explorer.distances = [0, 1, 2]
    explorer.portrait = "Benny"
    assert explorer.distances == pytest.approx([0.5, 0.6])
    explorer.distances = [2, 2]
    explorer.reset_distances()
    assert explorer.distances == pytest.approx([0.5, 0.6])


def test_portrait_and_distances_may_come_in_one_message() -> None:
    explorer = ControlMapExplorer([_item("Ada"), _item("Benny", phrases=["a person", "smiling"])])
    explorer.set_state({"portrait": "Benny", "distances": [0.5, 0.6]})
    assert (explorer.portrait, len(explorer.distances)) == ("Benny", 2)


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("portrait", "Cleo", "unknown portrait 'Cleo': expected one of Ada"),
        ("timestep", 7, "unknown timestep 7: expected one of 100, 300"),
        ("layer", "mid", "unknown layer 'mid': expected one of all layers, up 2.0"),
        ("subtraction", "max", "unknown subtraction 'max': expected one of mean, sum"),
        ("threshold", 1.0, "threshold=1.0: expected 0 or more, and less than 1"),
        ("threshold", -0.1, "threshold"),
        ("softness", 1.1, "softness"),
        ("weight", -1, "weight"),
        ("distances", [1, 1], "2 distances for 3 phrases"),
        ("distances", [1, 1, 2.5], "distances"),
    ],
)
def test_impossible_values_are_refused(trait: str, value: object, message: str) -> None:
    explorer = ControlMapExplorer([_item()])
    before = getattr(explorer, trait)
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items is empty"),
        ([{"label": "Ada"}], r"items\[0\] lacks difference, distances, image, layers, phrase_maps, phrases, timesteps"),
        ([_item(), _item()], r"items\[1\] repeats the label 'Ada'"),
        ([_item(timesteps=[])], r"timesteps must not be empty"),
        ([_item(layers=["a", "a"])], r"layers must not be empty or repeat itself"),
        ([_item(), _item("Benny", timesteps=[1, 2])], r"items\[1\] has timesteps \[1, 2\], but items\[0\] has"),
        ([_item(difference=np.zeros((3, 4, 4)))], r"difference has shape \(3, 4, 4\), expected \(2, any, any\)"),
        ([_item(phrase_maps=np.zeros((2, 2, 3, 4, 5)))], r"phrase_maps has shape .* expected \(2, 2, 3, 4, 4\)"),
        ([_item(difference=np.full((2, 4, 4), 1.1))], "difference has values from 1.1 to 1.1, expected 0 to 1"),
        ([_item(difference=np.full((2, 4, 4), np.nan))], "difference has values from nan"),
        ([_item(distances=[0.1, 0.2])], r"distances has shape \(2,\), expected \(3,\)"),
        ([_item(distances=[0.1, 0.2, 2.1])], "distances has values from 0.1 to 2.1, expected 0 to 2"),
    ],
)
def test_bad_items_are_refused_with_their_place(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControlMapExplorer(items)


def test_a_usual_item_is_small() -> None:
    maps = np.random.default_rng(0).random((4, 4, 7, 16, 16))
    changes: dict[str, Any] = {"timesteps": [1, 2, 3, 4], "layers": ["all layers", "a", "b", "c"], "phrase_maps": maps}
    item = _item(phrases=list("abcdefg"), difference=maps[:, 0, 0], **changes)
    assert len(json.dumps(ControlMapExplorer([item]).get_state("items"))) < 50_000


def test_viewers_without_javascript_get_a_picture() -> None:
    explorer = ControlMapExplorer([_item()])
    bundle = explorer._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert explorer.snapshot().size == (3 * 32 + 2 * 4, 32)
    before = explorer.snapshot().tobytes()
    explorer.threshold = 0.9
    assert explorer.snapshot().tobytes() != before, "the picture shows the current state"


def test_repr_is_stable() -> None:
    assert (
        repr(ControlMapExplorer([_item()]))
        == "ControlMapExplorer(1 items, portrait='Ada', timestep=100, layer='all layers')"
    )


def test_packed_maps_come_back_to_half_a_step() -> None:
    values = np.random.default_rng(0).random((2, 3, 5))
    assert np.abs(unpack(pack(values), values.shape) - values).max() <= 0.5 / 255 + 1e-12
    assert len(pack(values)) == 40, "a third more than a byte each"
    scales = np.array([0.3, 0.004])
    small = values / values.max(axis=(1, 2), keepdims=True) * scales[:, None, None]
    letters, kept = pack_scaled(small)
    assert len(letters) == values.size and kept == pytest.approx(scales, rel=1e-3)
    error = np.abs(unpack_scaled(letters, kept, values.shape) - small).max(axis=(1, 2))
    assert (error <= scales * (0.5 / 63 + 1e-3)).all()
    letters, kept = pack_scaled(np.zeros((1, 2, 2)))
    assert (letters, kept) == ("AAAA", [0.0])


def test_heat_gets_lighter_all_the_way() -> None:
    colors = ((0, 0, 0), (0, 100, 200), (200, 220, 255))
    picture = heat(np.array([[0.0, 0.5, 1.0]]), colors, (3, 1))
    assert [picture.getpixel((x, 0)) for x in range(3)] == list(colors)


def test_checked_takes_tensors() -> None:
    assert checked(torch.ones(2, 3), (2, None), "it").shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("up_blocks.2.attentions.1.transformer_blocks.0.attn2", "up 2.1"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2", "mid"),
        ("something.else", "something.else"),
    ],
)
def test_layers_get_short_names(name: str, label: str) -> None:
    assert layer_label(name) == label


@pytest.fixture
def tuned(toy: Backbone) -> Backbone:
    """A toy whose adapter changes what it predicts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return toy


def test_items_come_from_both_paths(tuned: Backbone, custom_set: CustomSet) -> None:
    items = custom_items(tuned, custom_set)[:2]
    one, two = control_map_items(tuned, items, [100, 500], labels=["first", "second"])
    layers = one["layers"]
    assert layers[0] == "all layers" and len(layers) == len(set(layers)) > 2
    assert one["phrases"] == [phrase.text for phrase in items[0].pair.phrases]
    assert one["region"] is None
    whole = replace(items[0], region=torch.ones(1, 8, 8))
    assert np.array_equal(control_map_items(tuned, [whole], [100])[0]["region"], np.ones((8, 8)))
    assert one["image"].size == (64, 64)
    assert one["distances"] == pytest.approx(items[0].distances.tolist())
    assert one["difference"].shape == (2, 8, 8)
    assert one["phrase_maps"].shape == (2, len(layers), len(one["phrases"]), 8, 8)
    assert one["difference"].min() == 0 and one["difference"].max() == pytest.approx(1), "the adapter acts"
    assert one["phrase_maps"].max(axis=(-2, -1)) == pytest.approx(1), "each map is stretched"
    assert not np.allclose(one["difference"], two["difference"])
    assert not np.allclose(one["phrase_maps"][:, 0], one["phrase_maps"][:, 1])
    explorer = ControlMapExplorer([one, two], portrait="second", threshold=0.3)
    assert 0 < (explorer.map() > 0).mean() < 1


def test_items_are_the_same_each_time_and_follow_the_options(tuned: Backbone, custom_set: CustomSet) -> None:
    items = custom_items(tuned, custom_set)[:1]
    make: Callable[..., dict[str, Any]] = lambda **options: control_map_items(tuned, items, [300], **options)[0]  # noqa: E731
    grainy = make(options=ControlMapOptions(smoothing=1))
    assert np.array_equal(make()["difference"], make()["difference"])
    assert make()["label"] == "portrait 1"
    assert not np.allclose(make(seed=1)["difference"], make()["difference"])
    smooth = np.abs(np.diff(make()["difference"])).mean()
    assert smooth < np.abs(np.diff(grainy["difference"])).mean()


@pytest.mark.parametrize(
    ("timesteps", "labels", "message"),
    [
        ([], None, "expected one or more, each from 0 to 999"),
        ([1000], None, r"timesteps=\[1000\]"),
        ([10], ["a", "b"], "2 labels for 1 portraits"),
    ],
)
def test_what_does_not_fit_is_refused(
    toy: Backbone, custom_set: CustomSet, timesteps: list[int], labels: list[str] | None, message: str
) -> None:
    items = custom_items(toy, custom_set)[:1]
    with pytest.raises(ValueError, match=message):
        control_map_items(toy, items, timesteps, labels=labels)
