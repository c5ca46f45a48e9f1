"""The Semantic-Aware Fine Control Map M of a portrait, with sliders for its options.

The noise difference D and the phrase maps A_p are in the widget's state, at their native resolution. The browser
computes M from them by the formula of :func:`spf_lite.method.control_map.combine`, so the sliders also work on a static
page.

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.evaluation.measures.maps import map_auc
from spf_lite.method.control_map import combine
from spf_lite.options import ControlMapOptions
from spf_lite.viz.plots import tinted
from spf_lite.widgets.base import PicturedWidget, among, check_items, es_module, labels
from spf_lite.widgets.content.image_encoding import data_uri, decode, side_by_side
from spf_lite.widgets.content.map_encoding import BLUES, Floats, checked, heat, pack, unpack

_KEYS = {"label", "image", "phrases", "distances", "timesteps", "layers", "difference", "phrase_maps"}
#: Largest CLIP distance: 1 minus a cosine.
MAX_DISTANCE = 2.0


class ControlMapExplorer(PicturedWidget):
    """Explore the control map of some portraits.

    A portrait with seven phrases, four timesteps and four layers takes about 45 kB of state.

    Args:
        items: one dictionary for each portrait, as made by :func:`spf_lite.widgets.explorer_data.control_map_items`:
            ``label`` (str), ``image`` (a picture), ``phrases`` (P texts), ``distances`` (their CLIP distances to the
            target, P numbers in [0, 2]), ``timesteps`` (T ints), ``layers`` (L names), ``difference`` (D, smoothed,
            (T, h, w) in [0, 1]) and ``phrase_maps`` (A_p, (T, L, P, h, w) in [0, 1]). Timesteps and layers are the same
            in all items. Optionally ``region``, (h, w): above 0 where the target changes the picture. It is outlined,
            and the map's AUC against it is shown.
        options: initial values of the sliders; ``smoothing`` must be that of D.

    Attributes:
        portrait: label of the portrait shown; setting it resets ``distances`` to the measured ones.
        timestep: one of the items' timesteps.
        layer: one of the items' layers.
        distances: CLIP distance d_p of each phrase to the target, in [0, 2]; the sliders change it.
        weight, threshold, softness, subtraction, rescale: as in :class:`~spf_lite.options.ControlMapOptions`.
        smoothing: that of D; it cannot be changed here.

    Raises:
        ValueError: if there are no items, or one lacks a key, repeats a label, or has arrays of another shape or range.
    """

    _esm = es_module("elements.js", "places.js", "maps.js", "control_map_explorer.js")

    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    portrait = traitlets.Unicode().tag(sync=True)
    timestep = traitlets.Int().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    distances = traitlets.List(traitlets.Float(min=0.0, max=MAX_DISTANCE)).tag(sync=True)
    weight = traitlets.Float(1.0, min=0.0).tag(sync=True)
    threshold = traitlets.Float(0.0, min=0.0).tag(sync=True)
    softness = traitlets.Float(1.0, min=0.0, max=1.0).tag(sync=True)
    subtraction = traitlets.Unicode("mean").tag(sync=True)
    rescale = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self, items: Sequence[Mapping[str, Any]], *, options: ControlMapOptions | None = None, **traits: Any
    ) -> None:
        options = options or ControlMapOptions()
        check_items(items, _KEYS, same=("timesteps", "layers"))
        packed = [_packed(item, f"items[{number}]") for number, item in enumerate(items)]
        self.smoothing = options.smoothing
        start = {name: getattr(options, name) for name in _SLIDERS}
        first = {"timestep": packed[0]["timesteps"][0], "layer": packed[0]["layers"][0], **start}
        # First the traits that the validation of the others reads.
        super().__init__(items=packed, portrait=traits.pop("portrait", packed[0]["label"]), **{**first, **traits})
        if "distances" not in traits:
            self.reset_distances()

    def current(self) -> dict[str, Any]:
        """The packed item of the portrait that is shown."""
        item: dict[str, Any] = next(item for item in self.items if item["label"] == self.portrait)
        return item

    def options(self) -> ControlMapOptions:
        """The options that the sliders are set to."""
        return ControlMapOptions(smoothing=self.smoothing, **{name: getattr(self, name) for name in _SLIDERS})

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The configuration with the current options of the control map; CLIP distances are no options."""
        return replace(config, control=self.options())

    def ingredients(self) -> tuple[Floats, Floats]:
        """D, (h, w), and A_p, (P, h, w), of the current portrait, timestep and layer, as float64."""
        item = self.current()
        t, layer = item["timesteps"].index(self.timestep), item["layers"].index(self.layer)
        shape = (len(item["timesteps"]), len(item["layers"]), len(item["phrases"]), *item["size"])
        return unpack(item["difference"], (shape[0], *item["size"]))[t], unpack(item["phrase_maps"], shape)[t, layer]

    def map(self) -> Floats:
        """M, (h, w) in [0, 1], for the current state: the map that is shown."""
        difference, phrase_maps = (torch.from_numpy(array)[None] for array in self.ingredients())
        distances = torch.tensor([self.distances], dtype=torch.float64)
        control: Floats = combine(difference[None], phrase_maps, distances, self.options())[0, 0].numpy()
        return control

    def auc(self) -> float | None:
        """How well M finds the true region (:func:`~spf_lite.evaluation.measures.maps.map_auc`); None if not known."""
        item = self.current()
        if item["region"] is None:
            return None
        return map_auc(self.map(), unpack(item["region"], tuple(item["size"])))

    def reset_distances(self) -> None:
        """Reset the distances to those that CLIP measured."""
        self.distances = list(self.current()["distances"])

    @traitlets.validate("portrait")
    def _known_portrait(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.items), "portrait")

    @traitlets.validate("timestep")
    def _known_timestep(self, proposal: dict[str, Any]) -> int:
        return among(proposal["value"], [int(time) for time in self.items[0]["timesteps"]], "timestep")

    @traitlets.validate("layer")
    def _known_layer(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], [str(layer) for layer in self.items[0]["layers"]], "layer")

    @traitlets.validate("subtraction")
    def _known_subtraction(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], ("mean", "sum"), "subtraction")

    @traitlets.validate("threshold")
    def _below_one(self, proposal: dict[str, Any]) -> float:
        threshold = float(proposal["value"])
        if not threshold < 1:
            raise traitlets.TraitError(f"threshold={threshold}: expected 0 or more, and less than 1")
        return threshold

    @traitlets.validate("distances")
    def _one_for_each_phrase(self, proposal: dict[str, Any]) -> list[float]:
        phrases, distances = self.current()["phrases"], [float(distance) for distance in proposal["value"]]
        if len(distances) != len(phrases):
            raise traitlets.TraitError(f"{len(distances)} distances for {len(phrases)} phrases: {phrases}")
        return distances

    @traitlets.observe("portrait")
    def _distances_of_portrait(self, change: dict[str, Any]) -> None:
        if change["old"]:  # not in __init__, where they may have been given
            self.reset_distances()

    def snapshot(self) -> Image.Image:
        """The portrait, D, and M over the portrait, side by side."""
        image = decode(self.current()["image"])
        return side_by_side(
            [image, heat(self.ingredients()[0], BLUES, image.size), tinted(image, self.map().clip(0, 1))]
        )

    def __repr__(self) -> str:
        place = f"portrait={self.portrait!r}, timestep={self.timestep}, layer={self.layer!r}"
        return f"ControlMapExplorer({len(self.items)} items, {place})"


_SLIDERS = ("weight", "threshold", "softness", "subtraction", "rescale")


def _packed(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    times, layers, phrases = list(item["timesteps"]), list(item["layers"]), list(item["phrases"])
    difference = checked(item["difference"], (len(times), None, None), f"{where}: difference")
    size = difference.shape[1:]
    maps = checked(item["phrase_maps"], (len(times), len(layers), len(phrases), *size), f"{where}: phrase_maps")
    region = item.get("region")
    distances = checked(item["distances"], (len(phrases),), f"{where}: distances", MAX_DISTANCE)
    return {
        "label": str(item["label"]),
        "image": data_uri(item["image"]),
        "phrases": [str(phrase) for phrase in phrases],
        "distances": np.round(distances, 4).tolist(),
        "timesteps": [int(time) for time in times],
        "layers": [str(layer) for layer in layers],
        "size": list(size),
        "difference": pack(difference),
        "phrase_maps": pack(maps),
        "region": None if region is None else pack(checked(np.asarray(region) > 0, tuple(size), f"{where}: region")),
    }
