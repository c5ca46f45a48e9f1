"""Whether the options of a configuration are in their ranges and fit one another.

Importing this module needs the standard library alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spf_lite.choices import CHOICES, WEIGHTS
from spf_lite.options import check_numbers, check_types

if TYPE_CHECKING:
    from spf_lite.config import TrainConfig

#: Options that are 1 or more, 0 or more, and in [0, 1].
COUNTS = ("batch_size", "rank", "checkpoint_every", "gradient_accumulation", "map_draws")
AMOUNTS = (
    *("warmup_steps", "reference_portraits", "pure_pairs", "contrast"),
    *("reach_limit", "learning_limit", "rewrite_limit", "style_limit"),
)
SHARES = (
    *("reference_share", "reconstruction_share", "earlier_share", "anchor_share", "anchor_empty", "anchor_own"),
    *("trusted", "map_timesteps", "denoise_outside"),
)


def check_config(config: TrainConfig) -> None:
    """Check a configuration.

    Raises:
        ValueError: if an option is out of its range, a term lacks the portraits that it needs, or no term with a weight
            would ever apply in stage 2.
    """
    check_types(config)
    if config.stage1_steps < 0 or config.stage2_steps < 0 or config.steps == 0:
        raise ValueError(f"{config.stage1_steps} + {config.stage2_steps} steps: at least one is needed, none negative")
    check_numbers(config, COUNTS, lambda value: value >= 1, "1 or more")
    check_numbers(config, (*AMOUNTS, *WEIGHTS.values()), lambda value: value >= 0, "0 or more")
    check_numbers(
        config,
        ("learning_rate", "max_grad_norm", "enclosed", "earlier_weight"),
        lambda value: value > 0,
        "more than 0",
    )
    check_numbers(config, SHARES, lambda value: 0 <= value <= 1, "0 to 1")
    for name, known in CHOICES.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name}={getattr(config, name)!r}: expected one of {', '.join(known)}")
    for name in ("weight_reconstruction", "weight_prior"):
        if getattr(config, name) and not (config.reference_portraits or config.anchor_share):
            raise ValueError(f"{name} needs reference_portraits or anchor_share: there is nothing it could apply to")
    if config.anchor_share and not config.weight_reconstruction:
        raise ValueError("anchor_share needs weight_reconstruction: anchors without a weight would be wasted items")
    if config.layers != "cross-attention" and config.trainable != "lora":
        raise ValueError(
            f"layers={config.layers} needs trainable=lora: {config.trainable} is for cross-attention alone"
        )
    if config.contrast and (config.trainable != "lora" or config.stage1_steps):
        raise ValueError("contrast is where the factors of a LoRA start in stage 2: set trainable=lora, stage1_steps=0")
    if config.pure_pairs and config.map_source not in ("surprise", "averaged", "given"):
        raise ValueError("pure_pairs needs a map that is made before stage 2: surprise, averaged or given")
    if config.rewrite_limit and not (config.pure_pairs and config.map_source == "surprise"):
        raise ValueError("rewrite_limit needs pure_pairs and map_source=surprise, which measures where phrases act")
    if config.stage1_steps and config.anchor_share == 1:
        raise ValueError("anchor_share=1 leaves stage 1 nothing to learn from")
    if config.stage2_steps and not any(config.weight(term) * share for term, share in _shares(config).items()):
        raise ValueError(
            f"stage2_steps={config.stage2_steps}, but no loss term with a weight applies to any item: give one of "
            f"{', '.join(WEIGHTS.values())} a weight, or set stage2_steps=0"
        )


def _shares(config: TrainConfig) -> dict[str, float]:
    """Share of the items of stage 2 that each term applies to, on average."""
    anchors = config.anchor_share
    reference = (1 - anchors) * config.reference_share if config.reference_portraits else 0.0
    repeats = bool(config.weight_reconstruction or config.weight_prior)
    reconstruction = anchors + (reference * config.reconstruction_share if repeats else 0.0)
    custom = 1 - anchors - reference
    shares = dict.fromkeys(WEIGHTS, 1 - reconstruction)
    shares |= {"denoise": custom, "enhancement": custom * config.trusted}
    return shares | {"reconstruction": reconstruction, "prior": reconstruction}
