"""What diffusion transformers have in common: layers of one resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How many layers are recorded. At 1,024 pixels the maps of one layer of PixArt-Sigma take 40 MB a portrait in 16 bits
#: (16 heads, 4,096 positions, 300 tokens), and a dual-path step keeps those of both paths.
RECORDED = 8


def evenly_spread(layers: int, most: int = RECORDED) -> list[int]:
    """Numbers of at most ``most`` of some layers, evenly spread over the depth of the network."""
    if layers <= most:
        return list(range(layers))
    return [(2 * k + 1) * layers // (2 * most) for k in range(most)]


def full_side(config: Mapping[str, Any]) -> int:
    """Longer side of the feature maps of a transformer, in patches, for portraits of the model's own size."""
    return -(-int(config["sample_size"]) // int(config["patch_size"]))
