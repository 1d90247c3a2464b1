"""Batches of cn-clip-tiny's training: pictures with their emoji, and texts with what they may mean, without end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.convert.architecture import CONTEXT_LENGTH
from tools.tiny.artwork import Artwork
from tools.tiny.augment import augment
from tools.tiny.model import SIDE
from tools.tiny.texts import LabelledText

IMAGES_PER_STEP = 128
TEXTS_PER_STEP = 96
UNKNOWN_CHANCE = 0.03
"""Share of word pieces that are replaced by [UNK], so that unknown pieces do no harm."""


@dataclass(frozen=True, slots=True)
class TextData:
    """All texts as token ids, and the emoji that they mean."""

    tokens: Tensor
    """(n, 52) int64."""
    emoji: Tensor
    """(n, emoji) float32: how likely each is meant."""
    shares: Tensor
    """(n,)"""
    unknown: int
    """The id of [UNK]."""


def text_data(texts: list[LabelledText], tokenizer: Tokenizer, emoji: int) -> TextData:
    """Return the texts as tensors. ``emoji``: how many there are.

    Raise ``ValueError`` if the tokenizer does not pad to the model's length.
    """
    tokens = torch.from_numpy(np.array([tokenizer.encode(text.text).ids for text in texts]))
    if tokens.shape[1] != CONTEXT_LENGTH:
        raise ValueError(f"The tokenizer gives {tokens.shape[1]} tokens a text, not {CONTEXT_LENGTH}.")
    meanings = torch.zeros(len(texts), emoji)
    for row, text in zip(meanings, texts, strict=True):
        row[list(text.emoji)] = torch.tensor(text.weights)
    unknown = tokenizer.get_vocab()["[UNK]"]
    return TextData(tokens, meanings, torch.tensor([text.share for text in texts]), unknown)


def batches(
    artwork: Artwork, texts: TextData, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield pictures, their emoji, tokens and their meanings, without end.

    Each batch is made in a thread while the one before is learned.
    """
    pixels, emoji = torch.from_numpy(artwork.pixels).permute(0, 3, 1, 2), torch.from_numpy(artwork.emoji)

    def make(chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = augment(pixels[chosen], SIDE, generator).contiguous(memory_format=torch.channels_last)
        return images, emoji[chosen], *text_batch(texts, TEXTS_PER_STEP, generator)

    with ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(1)) as thread:
        ahead: Future[tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
        while True:
            order = torch.randperm(len(emoji))  # of the global generator: the other one is the thread's
            for chosen in order[: len(order) // IMAGES_PER_STEP * IMAGES_PER_STEP].split(IMAGES_PER_STEP):
                ready, ahead = ahead, thread.submit(make, chosen)
                if ready is not None:
                    yield ready.result()


def text_batch(texts: TextData, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (n, length) token ids of ``count`` texts, some pieces replaced by [UNK], and (n, emoji) meanings."""
    chosen = torch.multinomial(texts.shares, count, replacement=True, generator=generator)
    tokens = texts.tokens[chosen]
    tokens = tokens[:, : int((tokens != 0).sum(1).max())]
    inner = (tokens != 0) & (tokens != tokens[:, :1]) & (torch.rand(tokens.shape, generator=generator) < UNKNOWN_CHANCE)
    return tokens.masked_fill(inner, texts.unknown), texts.emoji[chosen]
