"""What an adapter was trained for: its target, the phrases of base texts that it takes the place of, and such texts.

It stands in the metadata of the safetensors file, which other tools pass over. A run that learns another attribute on
top of the adapter asks the reference for this one with it (:mod:`spf_lite.data.earlier`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from spf_lite.models.adapters.lora_file import find_adapter
from spf_lite.models.errors import BackboneError

#: Keys of the metadata: the parts of a combined file, and the target of a file with one.
PARTS, TARGET = "spf_lite.parts", "spf_lite.target"


@dataclass(frozen=True)
class LearnedTarget:
    """A target that an adapter paints.

    Attributes:
        text: the target, as complete texts hold it.
        replaces: phrases of base texts that it takes the place of; if a text holds none of them, it is added.
        excludes: phrases that no text holds together with it, such as glasses with sunglasses.
        texts: base texts that it was learned with, of other people than the set's. The model shows it for texts like
            these; texts of a later set may be of another kind.
    """

    text: str
    replaces: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For the metadata of a LoRA file."""
        return json.dumps(asdict(self))

    @classmethod
    def of(
        cls, text: str, replaces: Iterable[str | None], excludes: Iterable[str] = (), texts: Iterable[str] = ()
    ) -> LearnedTarget:
        """A target with the phrases of some texts that it replaces; None: it is added to that text."""
        return cls(text, tuple(sorted({phrase for phrase in replaces if phrase})), tuple(excludes), tuple(texts))


def targets_of(path: str | Path) -> list[LearnedTarget | None]:
    """The targets of a LoRA file, one for each of its parts; None where it does not say.

    Args:
        path: file or folder.

    Raises:
        BackboneError: if there is no file, or what it says cannot be read.
    """
    file = find_adapter(path)
    try:
        with safe_open(file, framework="pt") as content:
            said = content.metadata() or {}
        return [learned(row) for row in _rows(said)]
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"the adapter {file} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackboneError(f"the adapter {file} says nothing readable about its target: {error!r}") from error


def learned(row: dict[str, Any]) -> LearnedTarget | None:
    """The target in a row of the metadata, None if it has none.

    Raises:
        TypeError: if what it has is something else.
        KeyError: if something is missing in it.
    """
    said = row.get("target")
    if said is None:
        return None
    text, rows = said["text"], [said["replaces"], said.get("excludes", []), said.get("texts", [])]
    lists = all(isinstance(part, list) and all(isinstance(one, str) for one in part) for part in rows)
    if not (isinstance(text, str) and text and lists):
        raise TypeError(f"{said} is no target with the phrases that it replaces and excludes, and with texts")
    return LearnedTarget(text, *map(tuple, rows))


def _rows(metadata: dict[str, str]) -> list[dict[str, Any]]:
    if PARTS in metadata:
        return list(json.loads(metadata[PARTS]))
    return [{"target": json.loads(metadata[TARGET])}] if TARGET in metadata else [{}]
