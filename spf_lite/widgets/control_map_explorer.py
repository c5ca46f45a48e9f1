"""Turn the knobs of the Semantic-Aware Fine Control Map and see at once where the target may change the portrait.

What the map is made of, the noise difference D and the phrase maps A_p, is in the widget's state, small and at its
native resolution. The browser puts it together by the formula of :func:`spf_lite.method.control_map.combine`, so that
the sliders live on a static page too. Used in chapter 7, "The Semantic-Aware Fine Control Map".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from spf_lite.config import ControlMapOptions, TrainConfig
from spf_lite.method.control_map import combine
from spf_lite.viz.plots import tinted
from spf_lite.widgets.base import PicturedWidget, among, check_items, es_module
from spf_lite.widgets.encoding import data_uri, decode, side_by_side
from spf_lite.widgets.maps import BLUES, Floats, checked, heat, pack, unpack

_KEYS = {"label", "image", "phrases", "distances", "timesteps", "layers", "difference", "phrase_maps"}
#: A cosine lies between -1 and 1, and the distance is 1 minus it.
FARTHEST = 2.0


class ControlMapExplorer(PicturedWidget):
    """Explore the control map of some portraits.

    A portrait with seven phrases, four timesteps and four layers takes about 45 kB of state.

    Args:
        items: one dictionary for each portrait, as :func:`spf_lite.widgets.explore.control_map_items` makes them:
            ``label`` (str), ``image`` (a picture), ``phrases`` (P texts), ``distances`` (their CLIP distances to the
            target, P numbers in [0, 2]), ``timesteps`` (T ints), ``layers`` (L names), ``difference`` (D, smoothed,
            (T, h, w) in [0, 1]) and ``phrase_maps`` (A_p, (T, L, P, h, w) in [0, 1]). Timesteps and layers are the same
            in all items.
        options: where the sliders start; its ``smoothing`` must be the one that D was made with.

    Attributes:
        portrait: label of the portrait shown; setting it takes ``distances`` back to what CLIP measured.
        timestep: one of the items' timesteps.
        layer: one of the items' layers.
        distances: CLIP distance of each phrase, as the reader has set it, in [0, 2].
        weight, threshold, softness, subtraction, rescale: as in :class:`~spf_lite.config.ControlMapOptions`.
        smoothing: with which D was made; it cannot be changed here.

    Raises:
        ValueError: if there are no items, or one lacks a key, repeats a label, or has arrays of another shape or range.
    """

    _esm = es_module("elements.js", "control_map_explorer.js")

    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    portrait = traitlets.Unicode().tag(sync=True)
    timestep = traitlets.Int().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    distances = traitlets.List(traitlets.Float(min=0.0, max=FARTHEST)).tag(sync=True)
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
        # What the checks of the other traits look at comes first.
        super().__init__(items=packed, portrait=traits.pop("portrait", packed[0]["label"]), **{**first, **traits})
        if "distances" not in traits:
            self.reset_distances()

    def current(self) -> dict[str, Any]:
        """The item that is shown, as it is packed."""
        return next(item for item in self.items if item["label"] == self.portrait)

    def options(self) -> ControlMapOptions:
        """The options that the sliders stand at."""
        return ControlMapOptions(smoothing=self.smoothing, **{name: getattr(self, name) for name in _SLIDERS})

    def apply(self, config: TrainConfig) -> TrainConfig:
        """A configuration whose control map is made with the current options; distances stay as CLIP measures them."""
        return replace(config, control=self.options())

    def ingredients(self) -> tuple[Floats, Floats]:
        """D, (h, w), and A_p, (P, h, w), of the current portrait, timestep and layer; in 64 bits, as stored."""
        item = self.current()
        t, layer = item["timesteps"].index(self.timestep), item["layers"].index(self.layer)
        shape = (len(item["timesteps"]), len(item["layers"]), len(item["phrases"]), *item["size"])
        return unpack(item["difference"], (shape[0], *item["size"]))[t], unpack(item["phrase_maps"], shape)[t, layer]

    def map(self) -> Floats:
        """M, (h, w) in [0, 1], for the current state: what the view draws."""
        difference, phrase_maps = (torch.from_numpy(array)[None] for array in self.ingredients())
        distances = torch.tensor([self.distances], dtype=torch.float64)
        return combine(difference[None], phrase_maps, distances, self.options())[0, 0].numpy()

    def reset_distances(self) -> None:
        """Take the distances back to what CLIP measured."""
        self.distances = list(self.current()["distances"])

    @traitlets.validate("portrait")
    def _known_portrait(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], [item["label"] for item in self.items], "portrait")

    @traitlets.validate("timestep")
    def _known_timestep(self, proposal: dict[str, Any]) -> int:
        return among(proposal["value"], self.items[0]["timesteps"], "timestep")

    @traitlets.validate("layer")
    def _known_layer(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], self.items[0]["layers"], "layer")

    @traitlets.validate("subtraction")
    def _known_subtraction(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], ("mean", "sum"), "subtraction")

    @traitlets.validate("threshold")
    def _below_one(self, proposal: dict[str, Any]) -> float:
        if not proposal["value"] < 1:
            raise traitlets.TraitError(f"threshold={proposal['value']}: expected 0 or more, and less than 1")
        return proposal["value"]

    @traitlets.validate("distances")
    def _one_for_each_phrase(self, proposal: dict[str, Any]) -> list[float]:
        phrases = self.current()["phrases"]
        if len(proposal["value"]) != len(phrases):
            raise traitlets.TraitError(f"{len(proposal['value'])} distances for {len(phrases)} phrases: {phrases}")
        return proposal["value"]

    @traitlets.observe("portrait")
    def _distances_of_portrait(self, change: dict[str, Any]) -> None:
        if change["old"]:  # not at the start, when they may have been given
            self.reset_distances()

    def snapshot(self) -> Image.Image:
        """In a row: the portrait, D, and M over the portrait."""
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
    distances = checked(item["distances"], (len(phrases),), f"{where}: distances", FARTHEST)
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
    }
