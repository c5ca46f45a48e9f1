"""What the views with a slider share: pictures and measures of several people, one for each of some rising numbers.

The numbers are the checkpoints of a run, or the weights that a loss term was given. What comes in is checked, and
packed as the state of a widget wants it; what is wrong is named with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Any

from PIL import Image

from spf_lite.widgets.encoding import data_uri


def listed(value: Any, where: str) -> list[Any]:
    """A value as a list; a single text, dictionary or picture is none."""
    if not isinstance(value, str | bytes | Mapping):
        try:
            return list(value)
        except TypeError:
            pass
    raise ValueError(f"{where} must be a list, and is a {type(value).__name__}")


def packed_people(people: Any) -> list[str]:
    """What is asked for, one text for each person."""
    texts = [str(person) for person in listed(people, "people")]
    if not texts:
        raise ValueError("nobody to look at: people is empty")
    return texts


def packed_pictures(pictures: Any, where: str, people: int) -> list[str]:
    """One picture for each person, as texts."""
    row = listed(pictures, where)
    if len(row) != people:
        raise ValueError(f"{where}: {len(row)} pictures of {people} people")
    for number, picture in enumerate(row):
        if not isinstance(picture, Image.Image):
            raise ValueError(f"{where}: picture {number} is a {type(picture).__name__}, not an image")
    return [data_uri(picture) for picture in row]


def packed_numbers(values: Any, where: str) -> list[float | None]:
    """Numbers as JSON knows them, to five digits; None for what is not one."""
    return [None if (number := _number(v, where)) is None else float(f"{number:.5g}") for v in listed(values, where)]


def packed_series(items: Any, what: str, along: str, people: int) -> list[dict[str, Any]]:
    """Check and pack what all such views are given.

    Args:
        items: one dictionary for each series, with ``label``, ``images``, the rising numbers and perhaps ``measures``.
        what: the argument's name, for messages.
        along: key of the rising numbers: ``steps`` or ``weights``.
        people: of how many there are pictures.

    Returns:
        One dictionary for each series, with these four keys and the ``order`` of its measures: in the file of a
        notebook dictionaries stand sorted.

    Raises:
        ValueError: naming the place that is wrong.
    """
    series: list[dict[str, Any]] = []
    for number, item in enumerate(listed(items, what)):
        where = f"{what}[{number}]"
        if not isinstance(item, Mapping):
            raise ValueError(f"{where} must be a dictionary, and is a {type(item).__name__}")
        if missing := sorted({"label", along, "images"} - set(item)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        if (label := str(item["label"])) in [other["label"] for other in series]:
            raise ValueError(f"{where} repeats the label {label!r}")
        stops = _rising(item[along], where, along)
        images = listed(item["images"], f"{where}: images")
        if len(images) != len(stops):
            raise ValueError(f"{where} has {len(stops)} {along} and pictures of {len(images)}")
        measures = _measures(item.get("measures", {}), where, along, len(stops))
        series.append(
            {
                "label": label,
                along: stops,
                "images": [
                    packed_pictures(row, f"{where}, {along.removesuffix('s')} {stop:g}", people)
                    for stop, row in zip(stops, images, strict=True)
                ],
                "measures": measures,
                "order": list(measures),
            }
        )
    if not series:
        raise ValueError(f"nothing to go through: {what} is empty")
    return series


def _number(value: Any, where: str) -> float | None:
    """A finite number; None for None, for infinity and for what is not a number by name (NaN)."""
    try:
        return None if value is None or not isfinite(value) else float(value)
    except TypeError:
        raise ValueError(f"{where}: {value!r} is not a number") from None


def _rising(values: Any, where: str, along: str) -> list[float]:
    given = listed(values, f"{where}: {along}")
    numbers = [number for value in given if (number := _number(value, f"{where}: {along}")) is not None]
    if not numbers or len(numbers) < len(given) or any(a >= b for a, b in pairwise(numbers)):
        raise ValueError(f"{where}: {along} must rise, and are {given}")
    return numbers


def _measures(measures: Any, where: str, along: str, expected: int) -> dict[str, list[float | None]]:
    if not isinstance(measures, Mapping):
        raise ValueError(f"{where}: measures must be a dictionary, and is a {type(measures).__name__}")
    packed = {str(name): packed_numbers(values, f"{where}: {name!r}") for name, values in measures.items()}
    for name, values in packed.items():
        if len(values) != expected:
            raise ValueError(f"{where}: {name!r} has {len(values)} values for {expected} {along}")
    return packed
