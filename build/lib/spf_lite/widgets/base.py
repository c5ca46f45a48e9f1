"""The base class of all widgets, and checks with messages that name what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anywidget
import traitlets
from PIL import Image

from spf_lite.widgets.content.image_encoding import png

FOLDER = Path(__file__).parent
T = TypeVar("T")


def es_module(*names: str) -> str:
    """The text of an ES module: the named files beside this one, joined in this order."""
    return "".join((FOLDER / name).read_text("utf-8") for name in names)


class PicturedWidget(anywidget.AnyWidget):
    """A widget in the common style that also has a static picture of itself.

    Jupyter shows the picture where no JavaScript runs, such as on GitHub.
    """

    _css = FOLDER / "widgets.css"

    def snapshot(self) -> Image.Image:
        """The current view as a picture, for viewers without JavaScript."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle: tuple[dict[str, Any], dict[str, Any]] | None = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0]["image/png"] = png(self.snapshot())
        return bundle


def among(value: object, known: Collection[T], what: str) -> T:
    """The value, if it is one of those known.

    Raises:
        traitlets.TraitError: if it is not; the message names the known ones.
    """
    for one in known:
        if one == value:
            return one
    raise traitlets.TraitError(f"unknown {what} {value!r}: expected one of {', '.join(map(str, known))}")


def labels(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ``label`` of each item, in their order."""
    return [str(item["label"]) for item in items]


def check_items(items: Sequence[Mapping[str, Any]], keys: set[str], same: Sequence[str]) -> None:
    """Check the items of an explorer.

    Args:
        items: one dictionary for each portrait, with a ``label`` of its own.
        keys: that each item must have.
        same: keys whose lists must be the same in all items, not empty, and without repetitions.

    Raises:
        ValueError: if an item is wrong; the message names the first.
    """
    if not items:
        raise ValueError("nothing to explore: items is empty")
    seen: set[str] = set()
    for number, item in enumerate(items):
        where = f"items[{number}]"
        if missing := sorted(keys - set(item)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        for key in same:
            mine, first = list(item[key]), list(items[0][key])
            if not mine or len(set(mine)) < len(mine):
                raise ValueError(f"{where}: {key} must not be empty or repeat itself, and is {mine}")
            if mine != first:
                raise ValueError(f"{where} has {key} {mine}, but items[0] has {first}")
        if item["label"] in seen:
            raise ValueError(f"{where} repeats the label {item['label']!r}")
        seen.add(item["label"])
