"""Options: how their types are checked and how they are read from texts, and the options of the control map.

Importing this module needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SUBTRACTIONS = ("mean", "sum")


def check_types(options: DataclassInstance) -> None:
    """Raise ValueError unless every value has the type of its default, and numbers are of a usable size."""
    for option in fields(options):
        if option.default is MISSING:
            continue
        value, kind = getattr(options, option.name), type(option.default)
        fits = type(value) in ((int, float) if kind is float else (kind,))
        if not fits or (kind in (int, float) and abs(value) >= 2**63):
            raise ValueError(f"{option.name}={value!r:.80}: expected a value like {option.default!r}")


def check_numbers(
    options: DataclassInstance, names: Iterable[str], fits: Callable[[float], bool], expected: str
) -> None:
    """Raise ValueError unless the number of each name fits. NaN fits nothing."""
    for name in names:
        if not fits(getattr(options, name)):
            raise ValueError(f"{name}={getattr(options, name)}: expected {expected}")


@dataclass(frozen=True)
class ControlMapOptions:
    """What the paper leaves open of the control map, M = clamp(D - w sum_p D_CLIP(p) A_p, 0, 1).

    Symbols as in :mod:`spf_lite.method.control_map`.

    Attributes:
        weight: w, weight of the subtraction.
        smoothing: side of the averaging box that D is smoothed with, in latent pixels, odd; 1: none. The difference of
            a single step is grainy.
        rescale: stretch M to [0, 1] per portrait. Without it M is a few hundredths for most targets.
        threshold: values of M up to this become 0.
        softness: 1 keeps the values above the threshold, 0 makes them 1 (a hard mask); values between blend both.
        subtraction: ``sum`` over the phrases is the paper's formula; ``mean`` (ours) divides it by the sum of the
            distances. Each phrase map covers [0, 1] and is about 1/3 on average, so the sum over a few phrases exceeds
            D nearly everywhere, and M is black.

    Raises:
        ValueError: if an option is out of its range.
    """

    weight: float = 1.0
    smoothing: int = 3
    rescale: bool = True
    threshold: float = 0.0
    softness: float = 1.0
    subtraction: str = "mean"

    def __post_init__(self) -> None:
        check_types(self)
        if self.smoothing < 1 or self.smoothing % 2 == 0:
            raise ValueError(f"smoothing={self.smoothing}: expected an odd number of latent pixels, 1 or more")
        if self.subtraction not in SUBTRACTIONS:
            raise ValueError(f"subtraction={self.subtraction!r}: expected one of {', '.join(SUBTRACTIONS)}")
        if not self.weight >= 0 or not 0 <= self.threshold < 1 or not 0 <= self.softness <= 1:
            raise ValueError(
                f"weight={self.weight} must not be negative, threshold={self.threshold} must be in [0, 1) and "
                f"softness={self.softness} in [0, 1]"
            )


def read_option(text: str, like: object, change: str) -> object:
    """Parse the text of an option as the type of its present value; ``change`` is quoted in errors."""
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"cannot set {change!r}: expected true or false")
        return text.lower() == "true"
    try:
        return float(text) if isinstance(like, float) else int(text) if isinstance(like, int) else text
    except ValueError:
        raise ValueError(f"cannot set {change[:80]!r}: expected a value like {like!r}") from None
