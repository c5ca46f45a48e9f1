"""Types of command-line arguments: whatever can be checked is checked before any work begins."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

if TYPE_CHECKING:
    from spf_lite.profiling.cards import Card

#: PyTorch's generators take seeds of 64 bits.
LARGEST_SEED = 2**63 - 1


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line without the usage, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and exit."""
        sys.stderr.write(f"{self.prog}: {' '.join(message.split())} (see '{self.prog} --help')\n")
        sys.exit(2)


#: What a command is added to.
Commands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``."""
    expected = f"expected a whole number, {least} or more" + (f" and at most {most}" if most is not None else "")

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}") from None
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}")
        return number

    return read


def seed(text: str) -> int:
    """A seed of a generator."""
    return at_least(0, LARGEST_SEED)(text)


def finite(text: str) -> float:
    """A number that is neither infinite nor NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a finite number")
    return number


def positive(text: str) -> float:
    """A finite number above zero."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number


def card(text: str) -> Card:
    """A graphics card by its name, or by its memory in GB."""
    from spf_lite.profiling.cards import CARDS, Card

    if text in CARDS:
        return CARDS[text]
    try:
        return Card("card", positive(text))
    except argparse.ArgumentTypeError:
        names = ", ".join(CARDS)
        raise argparse.ArgumentTypeError(f"{text!r}: expected {names}, or a memory in GB above 0") from None


def output_file(text: str) -> Path:
    """A file that can be written: its folder exists or can be made, and it is no folder itself."""
    path = Path(text).expanduser()
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: expected the name of a file")
    _writable(path.parent, text)
    if path.exists() and not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def picture_file(text: str) -> Path:
    """A file that can be written in a picture format that Pillow and matplotlib both know."""
    path = output_file(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name that ends in .png, .jpg or .webp")
    return path


def output_folder(text: str) -> Path:
    """A folder that is there and can be written, or that can be made."""
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file: expected a folder")
    _writable(path, text)
    return path


def new_folder(text: str) -> Path:
    """A folder to fill: it is empty, or can be made."""
    path = output_folder(text)
    if path.exists() and any(path.iterdir()):
        raise argparse.ArgumentTypeError(f"{text!r} holds files already: choose another folder")
    return path


def input_path(text: str) -> Path:
    """A file or folder that is there."""
    path = Path(text).expanduser()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {text!r}")
    return path


def named_path(text: str) -> tuple[str, Path]:
    """A name and a file or folder that is there: ``name=path``."""
    name, equals, path = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH")
    return name, input_path(path)


def target(text: str) -> str:
    """A target of the tiny world."""
    from spf_lite.tiny_world.portraits import get_target

    try:
        return get_target(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def targets(text: str) -> list[str]:
    """A target of the tiny world, or ``all`` of them."""
    from spf_lite.tiny_world.portraits import TARGETS

    return list(TARGETS) if text == "all" else [target(text)]


def order(text: str) -> list[str]:
    """Targets of the tiny world that one portrait can show, between commas."""
    from spf_lite.evaluation.incremental import check_order

    names = [target(name) for name in text.split(",")]
    try:
        check_order(names)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def recipe(text: str) -> str:
    """A recipe, with changes after commas."""
    from spf_lite.training.recipes import recipe as configuration

    try:
        configuration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def upper_limit(text: str) -> tuple[str, float]:
    """A measure of an audit and the highest value that is allowed: ``measure=value``."""
    from spf_lite.audit.limits import LIMITED_ABOVE

    return _limit(text, LIMITED_ABOVE)


def lower_limit(text: str) -> tuple[str, float]:
    """A measure of an audit and the lowest value that is allowed: ``measure=value``."""
    from spf_lite.audit.limits import LIMITED_BELOW

    return _limit(text, LIMITED_BELOW)


def _limit(text: str, among: Collection[str]) -> tuple[str, float]:
    from spf_lite.audit.limits import read_limit

    try:
        return read_limit(text, among)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _writable(folder: Path, text: str) -> None:
    """Raise unless a folder, or the nearest one above it that exists, can be written."""
    nearest = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r}: the folder {nearest} cannot be written")
