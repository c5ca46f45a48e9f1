"""Where the shipped samples lie (tiny model, custom sets, adapters, results), and the file names of a custom set."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).parent.parent / "data_samples"
#: ``data_samples`` of a checkout; in an installed package, the copy that came with it.
DATA_SAMPLES = _CHECKOUT if _CHECKOUT.is_dir() else Path(__file__).parent / "data_samples"

#: The two caption versions of a custom set of the tiny world; ``named`` is the one of every other set.
CAPTION_FILES = {"named": "metadata.jsonl", "silent": "metadata.silent.jsonl"}
#: Base texts of other people, for reference portraits.
REFERENCE_FILE = "references.jsonl"
#: What the portraits of a custom set of the tiny world share besides the target.
SPURIOUS_FILE = "spurious.json"
