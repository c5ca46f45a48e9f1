"""One widget of each kind, with small pictures and random maps."""

from collections.abc import Callable

import numpy as np

from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render
from spf_lite.widgets import (
    AttentionExplorer,
    BeforeAfter,
    ControlMapExplorer,
    DriftExplorer,
    MemoryCalculator,
    TrainingScrubber,
    WeightExplorer,
)
from spf_lite.widgets.base import PicturedWidget
from tests.widgets.test_memory_calculator import CARDS, STEPS

PERSON = render(Portrait(), 64)
MAPS = np.random.default_rng(0).random((2, 1, 2, 3, 16, 16))
WIDGETS: dict[str, Callable[[], PicturedWidget]] = {
    "before-after": lambda: BeforeAfter(
        [
            {
                "target": "sunglasses", "seed": seed, "prompt": "a person, sunglasses",
                "images": {"base": PERSON, "naive": PERSON, "spf": PERSON}, "changes": {"naive": ["skin tan → pale"]},
            }
            for seed in (0, 1)
        ]
    ),
    "control-map": lambda: ControlMapExplorer(
        [
            {
                "label": label, "image": PERSON, "phrases": ["hair", "skin"], "distances": [0.2, 0.9],
                "timesteps": [100, 300], "layers": ["all layers", "up 2.0"],
                "difference": MAPS[:, 0, 0, 0], "phrase_maps": MAPS[:, 0, :, :2],
            }
            for label in ("Ada", "Ben")
        ]
    ),
    "attention": lambda: AttentionExplorer(
        [
            {
                "label": label, "image": PERSON, "tokens": ["start", "hair", "end"], "timesteps": [100, 700],
                "layers": ["up 2.0"], "maps": MAPS / MAPS.sum(axis=3, keepdims=True),
            }
            for label in ("Ada", "Ben")
        ]
    ),
    "drift": lambda: DriftExplorer(
        [
            {"label": label, "moved": [0.1, 0.12, 0.3, 0.31, 0.1, 0.29, 0.11, 0.3], "images": [PERSON] * 4}
            for label in ("naive", "pure pairs")
        ],
        ["a person, sad", "a person, sad", "a person, smiling", "a person, smiling"] * 2,
        [PERSON] * 4,
    ),
    "scrubber": lambda: TrainingScrubber(
        [
            {
                "label": label, "steps": [0, 10], "images": [[PERSON], [PERSON]], "measures": {"flips": [0, 0.4]},
                "losses": {"denoise": [(0, 1.0), (5, 0.5)]}, "stage2_from": 5,
            }
            for label in ("naive", "dual path")
        ],
        ["a person"],
    ),
    "memory": lambda: MemoryCalculator(STEPS, CARDS),
    "weights": lambda: WeightExplorer(
        [
            {
                "label": label, "weights": [0, 1, 3], "images": [[PERSON]] * 3, "measures": {"flips": [0, 0.1, 0.4]},
                "remarks": ["weak", "right", "too much"],
            }
            for label in ("enhancement", "alignment")
        ],
        ["a person"],
        [PERSON],
    ),
}  # fmt: skip
