"""The captions that the tiny world is learned from: phrases left out, colours left out, order changed, at random.

A text encoder that has only met whole captions in one order does not know what a single phrase means; the control map
depends on it knowing (``1 - cos`` between a phrase and the target).
"""

from __future__ import annotations

from random import Random

from spf_lite.tiny_world.portraits import ATTRIBUTES, Portrait, describe, get_target, phrases


def random_caption(portrait: Portrait, rng: Random, keep_order: float = 0.6, silent: float = 0.06) -> str:
    """A caption of the portrait, its targets included.

    Args:
        portrait: what the caption is of; it never names what the portrait's targets hide.
        rng: draws what is left out.
        keep_order: chance that the phrases stand in the usual order instead of a random one.
        silent: chance, for each attribute, that the caption does not name it.
    """
    unseen = [name for name in ATTRIBUTES if rng.random() < silent]
    hidden = [name for target in portrait.targets for name in get_target(target).affects]
    said = phrases(portrait, [*unseen, *hidden])
    for name in portrait.targets:
        target = get_target(name)
        if target.kind == "replacement" and target.replaces:
            said[target.replaces] = target.text
        else:
            said[name] = target.text
    parts = list(said.values())
    if rng.random() >= keep_order:
        rng.shuffle(parts)
    return ", ".join(parts)


def true_phrases(portrait: Portrait) -> set[str]:
    """Every phrase that is true of the picture, in all the ways of saying it: for learning phrases on their own."""
    hidden = {name for target in portrait.targets for name in get_target(target).affects}
    found = {"a person", *(get_target(target).text for target in portrait.targets)}
    hair = {"hair_style", "hair_color"} - hidden
    clothes = {"clothes", "clothes_color"} - hidden
    for name in ("skin", "expression", "background", "glasses"):
        if name not in hidden:
            everything_else = [other for other in ATTRIBUTES if other != name]
            found.update(describe(portrait, everything_else).split(", "))
    if "hair_style" in hair:
        found.add(f"{portrait.hair_style} hair")
    if "hair_color" in hair:
        found.add(f"{portrait.hair_color} hair")
    if len(hair) == 2:
        found.add(f"{portrait.hair_color} {portrait.hair_style} hair")
    if "clothes" in clothes:
        found.add(portrait.clothes)
    if "clothes_color" in clothes:
        found.add(f"{portrait.clothes_color} clothes")
    if len(clothes) == 2:
        found.add(f"{portrait.clothes_color} {portrait.clothes}")
    return found
