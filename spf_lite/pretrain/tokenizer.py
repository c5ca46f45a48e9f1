"""The tiny world's tokenizer: an ordinary ``CLIPTokenizer`` whose byte-pair merges cover the captions' words.

Every word of a caption is one token; any other text falls back to pieces and single bytes, so nothing is ever unknown.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from spf_lite.tiny_world.portraits import all_phrases

MAX_LENGTH = 32
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
END_OF_WORD = "</w>"


def build() -> CLIPTokenizer:
    """Make the tokenizer; deterministic, so that an interrupted training of CLIP meets the same ids when it resumes."""
    words = sorted({word for phrase in all_phrases() for piece in phrase.split() for word in piece.split("-")})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(words)
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges), *SPECIAL]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first (Sennrich et al. 2016), until every word is one token.

    Ties go to the alphabet. The trainer of the ``tokenizers`` package settles them differently in every process.
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
