"""A portrait before and after fine-tuning, with a divider to drag, for each target, seed and method given.

Left of the divider is the base model's portrait, right of it the tuned model's with the same seed: for the complete
text, or for the base text, for which nothing may change. A text names the unrelated changes. All pictures are in the
widget's state, so it works on a static page, without Python and without a network.

In the book: :doc:`/01-semantic-pollution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets
from PIL import Image

from spf_lite.widgets.base import PicturedWidget, among, es_module
from spf_lite.widgets.content.image_encoding import data_uri, decode, side_by_side

#: Labels of the usual methods; other names are their own labels.
LABELS = {"naive": "naive fine-tuning", "spf": "dual path", "pure-pairs": "pure pairs"}
#: What a tuned model can be asked for.
TEXTS = ("complete text", "base text")
_KEYS = {"target", "seed", "prompt", "images"}


class BeforeAfter(PicturedWidget):
    """Compare portraits before and after customisation.

    Args:
        items: one dictionary for each pair of target and seed, with ``target`` (str), ``seed`` (int), ``prompt`` (the
            complete text), ``images`` (a picture named ``base`` and one for each method, all of one size) and, where
            known, ``changes`` (for each method the unrelated changes, such as "background gray → yellow") and ``shows``
            (for each method, and for ``base``, whether the target is there). If all items have ``base_text``, the
            reader can switch the text: a dictionary with ``prompt``, ``images`` (one for each method) and, where known,
            ``changes`` and ``shows``, of the base text.
        labels: of methods, in addition to :data:`LABELS`.
        before: label of the ``base`` picture.
        position: of the divider, in percent of the width from the left.

    Attributes:
        methods: to choose from, in the order of the first item's pictures.
        target: the target shown; setting it sets ``seed`` to one that the target has.
        seed: the seed shown.
        method: the method on the right of the divider.
        text: what the tuned model is asked for, one of :data:`TEXTS`.
        position: percent of the picture that shows the portrait before.
        difference: whether pixels that did not change are faded.

    Raises:
        ValueError: if there are no items, or one lacks a key, repeats a pair, has pictures of several sizes, or other
            methods than the first.
    """

    _esm = es_module("elements.js", "before_after.js")

    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    labels = traitlets.Dict().tag(sync=True)
    # A list, to keep their order: a notebook file holds dictionaries sorted.
    methods = traitlets.List(traitlets.Unicode()).tag(sync=True)
    target = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode(TEXTS[0]).tag(sync=True)
    position = traitlets.Float(50.0, min=0.0, max=100.0).tag(sync=True)
    difference = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        labels: Mapping[str, str] | None = None,
        before: str = "base model",
        position: float = 50.0,
        **traits: Any,
    ) -> None:
        _check(items)
        methods = [name for name in items[0]["images"] if name != "base"]
        first = {"target": items[0]["target"], "seed": items[0]["seed"], "method": methods[0]}
        known = {**LABELS, **(labels or {})}
        super().__init__(
            items=[_packed(item, methods) for item in items],
            methods=methods,
            labels={"base": before, **{name: known.get(name, name) for name in methods}},
            position=position,
            **{**first, **traits},
        )

    def seeds(self, target: str) -> list[int]:
        """The seeds for which there are pictures of a target, in the order given."""
        return [int(item["seed"]) for item in self.items if item["target"] == target]

    def current(self) -> dict[str, Any]:
        """The item that is shown."""
        item: dict[str, Any] = next(i for i in self.items if (i["target"], i["seed"]) == (self.target, self.seed))
        return item

    @traitlets.validate("target")
    def _known_target(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], list(dict.fromkeys(str(item["target"]) for item in self.items)), "target")

    @traitlets.validate("seed")
    def _known_seed(self, proposal: dict[str, Any]) -> int:
        # The target may change later in the same message, so a seed of any target is accepted.
        return among(proposal["value"], list(dict.fromkeys(int(item["seed"]) for item in self.items)), "seed")

    @traitlets.validate("method")
    def _known_method(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], [str(method) for method in self.methods], "method")

    @traitlets.validate("text")
    def _known_text(self, proposal: dict[str, Any]) -> str:
        known = TEXTS if "base_text" in self.items[0] else TEXTS[:1]
        return among(proposal["value"], known, "text")

    @traitlets.observe("target")
    def _keep_seed_possible(self, change: dict[str, Any]) -> None:
        if self.seed not in (seeds := self.seeds(change["new"])):
            self.seed = seeds[0]

    def snapshot(self) -> Image.Image:
        """The pictures of the current item in a row: before, then after each method."""
        item = self.current()
        after = item if self.text == TEXTS[0] else item["base_text"]
        pictures = [item["images"]["base"], *(after["images"][name] for name in self.methods)]
        return side_by_side([decode(picture) for picture in pictures])

    def __repr__(self) -> str:
        return f"BeforeAfter({len(self.items)} items, target={self.target!r}, seed={self.seed}, method={self.method!r})"


def _check(items: Sequence[Mapping[str, Any]]) -> None:
    if not items:
        raise ValueError("nothing to compare: items is empty")
    seen: set[tuple[str, int]] = set()
    for number, item in enumerate(items):
        where = f"items[{number}]"
        if missing := sorted(_KEYS - set(item)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        images = item["images"]
        if "base" not in images or len(images) < 2:
            raise ValueError(
                f"{where}: images needs 'base' and at least one method, and has {', '.join(images) or 'nothing'}"
            )
        if set(images) != set(items[0]["images"]):
            raise ValueError(
                f"{where} has images {', '.join(images)}, but items[0] has {', '.join(items[0]['images'])}"
            )
        if ("base_text" in item) != ("base_text" in items[0]):
            raise ValueError(f"{where}: all items have a base_text, or none has")
        views = {where: item} | ({f"{where}: base_text": item["base_text"]} if "base_text" in item else {})
        for name, view in views.items():
            _check_view(view, set(images), name)
        sizes = {image.size for view in views.values() for image in view["images"].values()}
        if len(sizes) > 1:
            raise ValueError(f"{where}: pictures must have one size, and have {sorted(sizes)}")
        if (pair := (item["target"], item["seed"])) in seen:
            raise ValueError(f"{where} repeats target {pair[0]!r} with seed {pair[1]}")
        seen.add(pair)


def _check_view(view: Mapping[str, Any], names: set[str], where: str) -> None:
    """Check what belongs to one text."""
    if missing := sorted({"prompt", "images"} - set(view)):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if lacking := sorted(names - {"base"} - set(view["images"])):
        raise ValueError(f"{where} has no picture of {', '.join(lacking)}")
    for key in ("changes", "shows"):
        if unknown := sorted(set(view.get(key, {})) - names):
            raise ValueError(f"{where}: {key} names {', '.join(unknown)}, of which there is no picture")


def _packed(item: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    packed = {"target": str(item["target"]), "seed": int(item["seed"]), **_packed_view(item, ("base", *methods))}
    if "base_text" in item:
        packed["base_text"] = _packed_view(item["base_text"], methods)
    return packed


def _packed_view(view: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What belongs to one text."""
    changes, shows = view.get("changes", {}), view.get("shows", {})
    return {
        "prompt": str(view["prompt"]),
        "images": {name: data_uri(view["images"][name]) for name in names},
        # No entry: the changes of this method are unknown. An empty list: nothing changed.
        "changes": {name: [str(change) for change in changes[name]] for name in names if name in changes},
        "shows": {name: bool(shows[name]) for name in names if name in shows},
    }
