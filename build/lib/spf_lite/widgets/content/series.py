"""Series of pictures and measures along increasing numbers, for the scrubber and the weight explorer.

The numbers are the checkpoints of a run, or the weights of a loss term. The functions check what they are given, and
pack it as a widget's state; their messages name the place that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Any

from PIL import Image

from spf_lite.widgets.content.image_encoding import data_uri


def listed(value: Any, where: str) -> list[Any]:
    """A value as a list.

    Raises:
        ValueError: if it is not iterable, or a text or a dictionary.
    """
    if not isinstance(value, str | bytes | Mapping):
        try:
            return list(value)
        except TypeError:
            pass
    raise ValueError(f"{where} must be a list, and is a {type(value).__name__}")


def packed_people(people: Any) -> list[str]:
    """The prompts of the people, one text for each."""
    texts = [str(person) for person in listed(people, "people")]
    if not texts:
        raise ValueError("people is empty: expected one text for each person")
    return texts


def packed_pictures(pictures: Any, where: str, people: int) -> list[str]:
    """One picture for each person, as data addresses."""
    row = listed(pictures, where)
    if len(row) != people:
        raise ValueError(f"{where}: {len(row)} pictures of {people} people")
    for number, picture in enumerate(row):
        if not isinstance(picture, Image.Image):
            raise ValueError(f"{where}: picture {number} is a {type(picture).__name__}, not an image")
    return [data_uri(picture) for picture in row]


def packed_numbers(values: Any, where: str) -> list[float | None]:
    """Numbers to five digits; None for None, infinity and NaN, which JSON does not have."""
    return [None if (number := _number(v, where)) is None else float(f"{number:.5g}") for v in listed(values, where)]


def packed_series(items: Any, what: str, along: str, people: int) -> list[dict[str, Any]]:
    """Check and pack the series of a view.

    Args:
        items: one dictionary for each series, with ``label``, ``images``, the increasing numbers and optionally
            ``measures``.
        what: the argument's name, for messages.
        along: key of the increasing numbers: ``steps`` or ``weights``.
        people: how many there are.

    Returns:
        One dictionary for each series, with these four keys and ``order``, the names of its measures in order: a
        notebook file holds dictionaries sorted.

    Raises:
        ValueError: if something does not fit; the message names the place.
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
        stops = _increasing(item[along], where, along)
        images = listed(item["images"], f"{where}: images")
        if len(images) != len(stops):
            raise ValueError(f"{where} has {len(stops)} {along} but images of {len(images)}")
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
        raise ValueError(f"{what} is empty")
    return series


def _number(value: Any, where: str) -> float | None:
    """A finite number; None for None, infinity and NaN."""
    try:
        return None if value is None or not isfinite(value) else float(value)
    except TypeError:
        raise ValueError(f"{where}: {value!r} is not a number") from None


def _increasing(values: Any, where: str, along: str) -> list[float]:
    given = listed(values, f"{where}: {along}")
    numbers = [number for value in given if (number := _number(value, f"{where}: {along}")) is not None]
    if not numbers or len(numbers) < len(given) or any(a >= b for a, b in pairwise(numbers)):
        raise ValueError(f"{where}: {along} must increase, and are {given}")
    return numbers


def _measures(measures: Any, where: str, along: str, expected: int) -> dict[str, list[float | None]]:
    if not isinstance(measures, Mapping):
        raise ValueError(f"{where}: measures must be a dictionary, and is a {type(measures).__name__}")
    packed = {str(name): packed_numbers(values, f"{where}: {name!r}") for name, values in measures.items()}
    for name, values in packed.items():
        if len(values) != expected:
            raise ValueError(f"{where}: {name!r} has {len(values)} values for {expected} {along}")
    return packed
