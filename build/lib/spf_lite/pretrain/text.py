"""The texts that the tiny model is trained on: the tokenizer, and captions with phrases left out and reordered.

The tokenizer is an ordinary ``CLIPTokenizer`` whose byte-pair merges cover the captions' words. Every word of a caption
is one token; any other text falls back to pieces and single bytes, so no text is unknown.

A text encoder that has only seen whole captions in one order does not know what a single phrase means. The control map
needs it to: ``1 - cos`` between a phrase and the target is a phrase's distance.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from spf_lite.tiny_world.portraits import ATTRIBUTES, Portrait, all_phrases, describe, get_target, phrases

MAX_LENGTH = 32
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
END_OF_WORD = "</w>"


def build_tokenizer() -> CLIPTokenizer:
    """Make the tokenizer; deterministic, so that a run of CLIP that is resumed finds the same token ids."""
    words = sorted({word for phrase in all_phrases() for piece in phrase.split() for word in piece.split("-")})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(words)
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges), *SPECIAL]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first (Sennrich et al. 2016), until every word is one token.

    Ties are settled alphabetically. The trainer of the ``tokenizers`` package settles them differently in every
    process.
    """
    splits = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while pairs := Counter(pair for split in splits for pair in pairwise(split)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for split in splits:
            for i in reversed(range(len(split) - 1)):
                if (split[i], split[i + 1]) == best:
                    split[i : i + 2] = ["".join(best)]
    return merges


def random_caption(portrait: Portrait, rng: Random, keep_order: float = 0.6, leave_out: float = 0.06) -> str:
    """A caption of the portrait, its targets included.

    Args:
        portrait: what the caption is of; an attribute that a target hides is never named.
        rng: decides what is left out and how the rest is ordered.
        keep_order: probability that the phrases stand in the usual order instead of a random one.
        leave_out: probability, for each attribute, that the caption does not name it.
    """
    unnamed = [name for name in ATTRIBUTES if rng.random() < leave_out]
    hidden = [name for target in portrait.targets for name in get_target(target).affects]
    said = phrases(portrait, [*unnamed, *hidden])
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
    """Every phrase that is true of the picture, in every wording, for learning what single phrases mean."""
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
