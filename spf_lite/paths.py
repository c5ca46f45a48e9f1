"""Where the shipped samples lie: the tiny model, custom sets, adapters, results."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).parent.parent / "data_samples"
#: ``data_samples`` of a checkout; in an installed package, the copy that came with it.
DATA_SAMPLES = _CHECKOUT if _CHECKOUT.is_dir() else Path(__file__).parent / "data_samples"
