"""The cross-attention maps of a portrait, by token, layer, head and timestep.

The maps of all heads are in the widget's state, and the browser averages over heads and layers. So it works on a static
page, too.

In the book: :doc:`/03-attention`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets
from PIL import Image

from spf_lite.widgets.base import PicturedWidget, among, check_items, es_module, labels
from spf_lite.widgets.content.image_encoding import data_uri, decode, side_by_side
from spf_lite.widgets.content.map_encoding import ORANGES, Floats, checked, heat, pack_scaled, unpack_scaled

_KEYS = {"label", "image", "tokens", "timesteps", "layers", "maps"}
ALL_LAYERS = "all layers"
MEAN = "mean"


class AttentionExplorer(PicturedWidget):
    """Explore the cross-attention of some portraits.

    A map value takes one character of state (its resolution is a 63rd of the map's maximum). A portrait with 20 tokens,
    three timesteps, three layers of four heads and 16 x 16 positions takes about 195 kB.

    Args:
        items: one dictionary for each portrait, as made by :func:`spf_lite.widgets.explorer_data.attention_items`:
            ``label`` (str), ``image`` (a picture), ``tokens`` (K texts), ``timesteps`` (T ints), ``layers`` (L names)
            and ``maps`` (attention probabilities, (T, L, heads, K, h, w); heads may be any number, the same in all
            items). Timesteps and layers are the same in all items.

    Attributes:
        portrait: label of the portrait shown; setting it sets ``token`` to 0 if the text has no such token.
        token: index of the token whose map is shown.
        timestep: one of the items' timesteps.
        layer: one of the items' layers, or "all layers", their mean.
        head: "1", "2" and so on, or "mean" of all heads.
        opacity: of the map over the portrait, in [0, 1].

    Raises:
        ValueError: if there are no items, or one lacks a key, repeats a label, or has maps of another shape or range.
    """

    _esm = es_module("elements.js", "places.js", "maps.js", "attention_explorer.js")

    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    portrait = traitlets.Unicode().tag(sync=True)
    token = traitlets.Int().tag(sync=True)
    timestep = traitlets.Int().tag(sync=True)
    layer = traitlets.Unicode(ALL_LAYERS).tag(sync=True)
    head = traitlets.Unicode(MEAN).tag(sync=True)
    opacity = traitlets.Float(0.75, min=0.0, max=1.0).tag(sync=True)

    def __init__(self, items: Sequence[Mapping[str, Any]], **traits: Any) -> None:
        check_items(items, _KEYS, same=("timesteps", "layers"))
        packed = [_packed(item, f"items[{number}]") for number, item in enumerate(items)]
        for number, item in enumerate(packed):
            if item["heads"] != packed[0]["heads"]:
                raise ValueError(f"items[{number}] has {item['heads']} heads, but items[0] has {packed[0]['heads']}")
        # First the traits that the validation of the others reads.
        first = {"portrait": traits.pop("portrait", packed[0]["label"]), "timestep": packed[0]["timesteps"][0]}
        super().__init__(items=packed, **{**first, **traits})
        if "token" not in traits:
            self.token = _first_word(self.current()["tokens"])

    @property
    def heads(self) -> list[str]:
        """The values that ``head`` can take."""
        return [MEAN, *(str(head + 1) for head in range(self.items[0]["heads"]))]

    @property
    def layers(self) -> list[str]:
        """The values that ``layer`` can take."""
        return [ALL_LAYERS, *map(str, self.items[0]["layers"])]

    def current(self) -> dict[str, Any]:
        """The packed item of the portrait that is shown."""
        item: dict[str, Any] = next(item for item in self.items if item["label"] == self.portrait)
        return item

    def map(self) -> Floats:
        """The map that is shown, (h, w): at each position, the attention probability of the token."""
        item = self.current()
        shape = (len(item["timesteps"]), len(item["layers"]), item["heads"], len(item["tokens"]), *item["size"])
        maps = unpack_scaled(item["maps"], item["scales"], shape)
        maps = maps[item["timesteps"].index(self.timestep), :, :, self.token]
        if self.layer != ALL_LAYERS:
            maps = maps[[item["layers"].index(self.layer)]]
        if self.head != MEAN:
            maps = maps[:, [int(self.head) - 1]]
        mean: Floats = maps.mean(axis=(0, 1))
        return mean

    @traitlets.validate("portrait")
    def _known_portrait(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.items), "portrait")

    @traitlets.validate("timestep")
    def _known_timestep(self, proposal: dict[str, Any]) -> int:
        return among(proposal["value"], [int(time) for time in self.items[0]["timesteps"]], "timestep")

    @traitlets.validate("layer")
    def _known_layer(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], self.layers, "layer")

    @traitlets.validate("head")
    def _known_head(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], self.heads, "head")

    @traitlets.validate("token")
    def _known_token(self, proposal: dict[str, Any]) -> int:
        token, count = int(proposal["value"]), len(self.current()["tokens"])
        if not 0 <= token < count:
            raise traitlets.TraitError(f"token={token}: expected 0 to {count - 1}")
        return token

    @traitlets.observe("portrait")
    def _keep_token_possible(self, change: dict[str, Any]) -> None:
        if self.token >= len(self.current()["tokens"]):
            self.token = 0

    def snapshot(self) -> Image.Image:
        """The portrait, and beside it the map over the portrait."""
        image, values = decode(self.current()["image"]), self.map()
        drawn = heat(values / max(values.max(), 1e-9), ORANGES, image.size)
        return side_by_side([image, Image.blend(image, drawn, self.opacity)])

    def __repr__(self) -> str:
        place = f"portrait={self.portrait!r}, token={self.current()['tokens'][self.token]!r}, layer={self.layer!r}"
        return f"AttentionExplorer({len(self.items)} items, {place}, head={self.head!r}, timestep={self.timestep})"


def _first_word(tokens: Sequence[str]) -> int:
    """The token after the start token: the start token gets attention that belongs to no word."""
    return min(1, len(tokens) - 1)


def _packed(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    times, layers, tokens = list(item["timesteps"]), list(item["layers"]), list(item["tokens"])
    if not tokens:
        raise ValueError(f"{where}: tokens is empty")
    shape = (len(times), len(layers), None, len(tokens), None, None)
    # Sums of probabilities in 32 bits may be a little above 1.
    maps = checked(item["maps"], shape, f"{where}: maps", highest=1 + 1e-4)
    letters, scales = pack_scaled(maps)
    return {
        "label": str(item["label"]),
        "image": data_uri(item["image"]),
        "tokens": [str(token) for token in tokens],
        "timesteps": [int(time) for time in times],
        "layers": [str(layer) for layer in layers],
        "heads": maps.shape[2],
        "size": list(maps.shape[-2:]),
        "maps": letters,
        "scales": scales,
    }
