"""What the explorers share: a picture for viewers without JavaScript, and plain words for a wrong choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from spf_lite.widgets.encoding import png

FOLDER = Path(__file__).parent


def es_module(*names: str) -> str:
    """The text of a view's ES module, put together from files beside this one."""
    return "".join((FOLDER / name).read_text("utf-8") for name in names)


class PicturedWidget(anywidget.AnyWidget):
    """A widget in the common style that can draw itself as one picture."""

    _css = FOLDER / "widgets.css"

    def snapshot(self) -> Image.Image:
        """The current view as a picture, for viewers without JavaScript."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle: tuple[dict[str, Any], dict[str, Any]] | None = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0]["image/png"] = png(self.snapshot())
        return bundle


def among(value: Any, known: Collection[Any], what: str) -> Any:
    """The value, if it is one of those known; otherwise a :class:`traitlets.TraitError` that names them."""
    if value not in known:
        raise traitlets.TraitError(f"unknown {what} {value!r}: there is {', '.join(map(str, known))}")
    return value


def check_items(items: Sequence[Mapping[str, Any]], keys: set[str], same: Sequence[str]) -> None:
    """Check what items of every explorer have in common.

    Args:
        items: one dictionary for each portrait, with a ``label``.
        keys: that each must have.
        same: keys whose list must be the same in all items, and neither empty nor with repetitions.

    Raises:
        ValueError: naming the first item that is wrong.
    """
    if not items:
        raise ValueError("nothing to explore: items is empty")
    labels: set[str] = set()
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
        if item["label"] in labels:
            raise ValueError(f"{where} repeats the label {item['label']!r}")
        labels.add(item["label"])
