"""Prompts of TinyWan: every known word is one fixed 4096-vector, so no text encoder is needed.

Word i of the vocabulary owns channels [256 i, 256 (i + 1)) and sets them to 1. The vectors are orthogonal, exact in
fp16 and bf16, and defined by this file alone (no table of numbers, no random generator).
"""

import torch

TEXT_DIM = 4096  # Wan's text width (UMT5-XXL); ComfyUI does not detect it from the file
CHANNELS_PER_WORD = 256  # 4096 / 256 = room for 16 words
NULL = "null"  # stands for the empty prompt
VOCABULARY = (
    NULL, "moving",
    "red", "green", "blue", "yellow", "magenta", "cyan",
    "circle", "square", "triangle",
    "left", "right", "up", "down",
)  # fmt: skip
WORD_INDEX = {word: index for index, word in enumerate(VOCABULARY)}


def word_vector(word: str) -> torch.Tensor:
    """The (4096,) float32 vector of one word: 256 ones, zero elsewhere. Raises ValueError for an unknown word."""
    if word not in WORD_INDEX:
        known = ", ".join(VOCABULARY[1:])
        raise ValueError(f"TinyWan does not know the word {word!r}. It knows: {known}.")
    vector = torch.zeros(TEXT_DIM)
    start = WORD_INDEX[word] * CHANNELS_PER_WORD
    vector[start : start + CHANNELS_PER_WORD] = 1.0
    return vector


def encode(prompt: str) -> torch.Tensor:
    """Text hidden states of a prompt: (1, n_words, 4096). An empty prompt is the single "null" token."""
    words = prompt.lower().replace(",", " ").split() or [NULL]
    return torch.stack([word_vector(word) for word in words])[None]


def encode_batch(prompts: list[str]) -> torch.Tensor:
    """Text hidden states of prompts with equally many words: (B, n_words, 4096)."""
    lengths = {encode(prompt).shape[1] for prompt in prompts}
    if len(lengths) > 1:
        raise ValueError(f"Prompts in one batch need the same number of words, got {sorted(lengths)}.")
    return torch.cat([encode(prompt) for prompt in prompts])
