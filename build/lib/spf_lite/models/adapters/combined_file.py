"""A LoRA file of several attributes: which ones it holds, at which strength, and how to take one out again.

The file is an ordinary LoRA that any tool loads. What its parts are stands in the metadata of the safetensors format,
which other tools pass over: of each part its name, its strength, its rank in every layer, and its target.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffusers import ModelMixin
from safetensors import safe_open

from spf_lite.files import write_files
from spf_lite.models.adapters.learned import PARTS, LearnedTarget, learned, targets_of
from spf_lite.models.adapters.lora_file import ADAPTER_FILES, Factors, find_adapter, named, read_lora
from spf_lite.models.adapters.stack import combined, with_strengths
from spf_lite.models.backbones.registry import architecture_of_network
from spf_lite.models.errors import BackboneError

CARD = "README.md"
#: Name of the folder in a run's folder that says nothing about the run.
_EXPORT = "adapter"


@dataclass(frozen=True)
class Part:
    """One attribute of a LoRA file.

    Attributes:
        name: of the attribute.
        strength: factor of its change.
        ranks: in each layer of the file, in the order of their names; 0: it leaves the layer alone.
        target: what it paints; None: the file does not say.
    """

    name: str
    strength: float
    ranks: tuple[int, ...]
    target: LearnedTarget | None = None

    def __str__(self) -> str:
        return f"{self.name}, strength {self.strength:g}, rank {max(self.ranks)}"


def parts_of(path: str | Path, factors: dict[str, Factors]) -> list[Part]:
    """What a LoRA file holds. A file that does not say is one part, with the name of its folder or file.

    Args:
        path: file or folder.
        factors: what :func:`spf_lite.models.adapters.lora_file.read_lora` read from it.

    Raises:
        BackboneError: if the file says something that does not fit its factors.
    """
    file = find_adapter(path)
    whole = tuple(len(factors[name].down) for name in sorted(factors))
    with safe_open(file, framework="pt") as content:
        said = (content.metadata() or {}).get(PARTS)
    if said is None:
        folder = file.parent if file.name in ADAPTER_FILES else file.with_suffix("")
        named = folder.resolve().parent if folder.name == _EXPORT else folder
        return [Part(named.name, 1.0, whole, *targets_of(file))]
    try:
        parts = [
            Part(str(row["name"]), float(row["strength"]), tuple(map(int, row["ranks"])), learned(row))
            for row in json.loads(said)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise BackboneError(f"the adapter {file} says nothing readable about its parts: {error!r}") from error
    sums = tuple(map(sum, zip(*(part.ranks for part in parts), strict=False)))
    if sums != whole or any(rank < 0 for part in parts for rank in part.ranks):
        raise BackboneError(f"the adapter {file} has other ranks than its parts: it was changed by another tool")
    return parts


def write_combined(
    folder: str | Path,
    adapters: Sequence[str | Path],
    network: ModelMixin,
    strengths: Sequence[float] | None = None,
    without: Collection[str] = (),
) -> list[Part]:
    """Write several LoRAs as one file, with a card that names the parts.

    Args:
        folder: made if it is not there. An adapter that is there stays as it is until the new one is whole.
        adapters: files or folders. The parts of a combined file are parts of the new one.
        network: that they are for; it is not changed.
        strengths: one for each, factor of its change; default: 1.
        without: names of parts that are left out.

    Returns:
        The parts that were written.

    Raises:
        BackboneError: if an adapter cannot be read or does not fit, two parts have one name, or nothing is left.
        ValueError: if there are not as many strengths as adapters, one is not finite, or there is no part of a name.
        OSError: if the folder cannot be written.
    """
    found: list[tuple[Part, dict[str, Factors], float]] = []
    for path, strength in with_strengths(adapters, strengths):
        factors = read_lora(path, network)
        found += [
            (replace(part, strength=part.strength * strength), own, strength)
            for part, own in _split(parts_of(path, factors), factors)
        ]
    names = [part.name for part, *_ in found]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BackboneError(f"several adapters are called {', '.join(twice)}: rename a folder")
    if unknown := set(without) - set(names):
        raise ValueError(f"no part {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    kept = [one for one in found if one[0].name not in without]
    if not kept:
        raise BackboneError("nothing is left to write: all parts are left out")
    factors = combined([(own, strength) for _, own, strength in kept])
    parts = [
        replace(part, ranks=tuple(len(own[name].down) if name in own else 0 for name in sorted(factors)))
        for part, own, _ in kept
    ]
    rows = [asdict(part) for part in parts]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Weights last: where they are, the adapter is whole.
    architecture = architecture_of_network(network)
    content = architecture.adapter_files(named(factors), {PARTS: json.dumps(rows)})
    card = _card(parts, architecture.loading_hint())
    write_files({folder / CARD: card, **{folder / name: data for name, data in content.items()}})
    return parts


def _split(parts: Sequence[Part], factors: dict[str, Factors]) -> list[tuple[Part, dict[str, Factors]]]:
    """Each part with its own rows and columns of the factors."""
    rows = dict.fromkeys(sorted(factors), 0)
    split = []
    for part in parts:
        own = {}
        for name, rank in zip(sorted(factors), part.ranks, strict=True):
            here = slice(rows[name], rows[name] + rank)
            rows[name] += rank
            if rank:
                own[name] = Factors(factors[name].down[here], factors[name].up[:, here])
        split.append((part, own))
    return split


def _card(parts: Sequence[Part], hint: str) -> str:
    rows = "\n".join(f"| {part.name} | {part.strength:g} | {max(part.ranks)} |" for part in parts)
    return f"""---
library_name: diffusers
tags: [stable-diffusion, text-to-image, lora, spf-portrait]
---

# LoRA adapter: {", ".join(part.name for part in parts)}

{len(parts)} adapters in one, written by SPF-Lite. {hint} Their changes
add up. SPF-Lite takes each out again: `spf-lite combine NEW THIS --without NAME`.

| part | strength | rank |
|---|---|---|
{rows}
"""
