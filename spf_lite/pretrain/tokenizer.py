"""The tiny world's tokenizer: an ordinary ``CLIPTokenizer`` whose byte-pair merges cover the captions' words.

Every word of a caption is one token; any other text falls back to pieces and single bytes, so nothing is ever unknown.
"""

from __future__ import annotations

import json

import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from spf_lite.portraits import all_phrases

MAX_LENGTH = 32
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def build() -> CLIPTokenizer:
    """Make the tokenizer; deterministic."""
    words = sorted({word for phrase in all_phrases() for piece in phrase.split() for word in piece.split("-")})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    # The lone bytes come along so that each of them also has its form at the end of a word.
    learner.train_from_iterator([*words, *alphabet, ",", "-"], trainer)
    learned = json.loads(learner.to_str())["model"]
    vocab: dict[str, int] = dict(learned["vocab"])
    for token in SPECIAL:
        vocab[token] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=MAX_LENGTH)
