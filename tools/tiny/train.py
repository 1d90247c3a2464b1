"""Train cn-clip-tiny on the CPU, in one run or in several: ``python -m tools.tiny.train --hours 2``.

A run that was stopped goes on when it is started again.

Both halves learn to name the emoji: a picture's or a text's vector is compared with one learned vector (a prototype)
per emoji, and a softmax over all of them says which it is. Contrasting the pairs of a batch alone hardly moves at this
size; prototypes do what a batch of all emoji would. A second, smaller term ranks the batch's pictures for each
prototype, which is what a search does. A third one draws texts and prototypes together: without it both halves name
emoji well and yet do not find each other, since a softmax leaves most directions free.

The learning rate follows the time spent, not the steps made, so that a slow machine ends as surely as a fast one.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import installed_vocabulary, read_vocabulary
from tools.tiny.artwork import Artwork, fetch_packages, training_artwork
from tools.tiny.batches import TextData, batches, text_batch, text_data
from tools.tiny.model import EMBEDDING_SIZE, architecture, image_features, text_features
from tools.tiny.texts import emoji_to_learn, labelled_texts, pruned_tokenizer, read_annotations

log = logging.getLogger(__name__)

DEFAULT_CACHE = Path("~/.cache/immich-bento/tiny").expanduser()
TEXTS_PER_LATER_STEP = 256
JOINT_SHARE = 0.8
"""Of the whole time; what is left is for the texts alone."""
PEAK_RATE = 2e-3
WARM_UP = 0.04
"""Of a stage's time."""
LABEL_SMOOTHING = 0.1
RANKING_WEIGHT = 0.3
ALIGNMENT_WEIGHT = 10.0


class Learner(nn.Module):  # type: ignore[misc]
    """The model, and what only training needs: one prototype per emoji."""

    def __init__(self, vocabulary: int, emoji: int) -> None:
        super().__init__()
        self.clip = architecture(vocabulary).build().to(memory_format=torch.channels_last)
        self.prototypes = nn.Parameter(torch.randn(emoji, EMBEDDING_SIZE) * EMBEDDING_SIZE**-0.5)

    def loss(self, images: Tensor, emoji: Tensor, tokens: Tensor, meanings: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of (n,) pictures' ``emoji`` and (m, emoji) texts' ``meanings``, and figures for the log."""
        scale = self.clip.logit_scale.exp().clamp(max=50)
        prototypes = functional.normalize(self.prototypes, dim=-1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pictures, texts = image_features(self.clip, images), text_features(self.clip, tokens)
        pictures, texts = pictures.float(), texts.float()
        named = scale * pictures @ prototypes.T
        by_name = functional.cross_entropy(named, emoji, label_smoothing=LABEL_SMOOTHING)
        same = (emoji[:, None] == emoji).float()
        by_rank = functional.cross_entropy(named[:, emoji].T, same / same.sum(1, keepdim=True))
        read = scale * texts @ prototypes.T
        by_text = functional.cross_entropy(read, meanings)
        alignment = functional.cosine_similarity(texts, meanings @ prototypes).mean()
        right = (named.argmax(1) == emoji).float().mean()
        read_right = (meanings.gather(1, read.argmax(1, keepdim=True)) > 0).float().mean()
        figures = {"image": by_name.item(), "text": by_text.item(), "alignment": alignment.item()}
        figures |= {"image right": right.item(), "text right": read_right.item()}
        return by_name + RANKING_WEIGHT * by_rank + by_text + ALIGNMENT_WEIGHT * (1 - alignment), figures


class _Run:
    """One training, over as many runs of the script as it takes: its state, and the time it took."""

    def __init__(self, state: dict[str, Any], tokenizer: Tokenizer, checkpoint: Path) -> None:
        self.state, self.spent, self.step = state, 0.0, 0
        self._tokenizer, self._checkpoint = tokenizer, checkpoint
        self._last, self._saved = time.monotonic(), 0.0

    def tick(self, figures: dict[str, float]) -> None:
        """Count a step."""
        now = time.monotonic()
        self.step, self.spent, self._last = self.step + 1, self.spent + now - self._last, now
        if self.step % 20 == 0:
            log.info(
                "%5d %5.0f s  %s",
                self.step,
                self.spent,
                "  ".join(f"{name} {value:.3f}" for name, value in figures.items()),
            )
        if self.spent - self._saved > 120:
            self.save()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self._checkpoint.is_file():
            saved = torch.load(self._checkpoint, weights_only=True)
            for name, holder in self.state.items():
                holder.load_state_dict(saved[name])
            self.spent, self.step = saved["spent"], saved["step"]
            log.info("Going on from %s: %d steps in %.0f s.", self._checkpoint, self.step, self.spent)
        self._last, self._saved = time.monotonic(), self.spent

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self._checkpoint.with_suffix(".part")
        content = {name: holder.state_dict() for name, holder in self.state.items()}
        torch.save(content | {"tokenizer": self._tokenizer.to_str(), "spent": self.spent, "step": self.step}, part)
        part.replace(self._checkpoint)
        self._saved = self.spent


def main() -> None:
    """Fetch, render, train, and leave ``checkpoint.pt`` in the cache folder.

    ``tools.tiny.export`` makes the model from it.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="time to train for, all runs together (2)")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of the learning itself; another one makes the pictures (1)"
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"artwork and checkpoint ({DEFAULT_CACHE})")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    modules = fetch_packages(options.cache)
    annotations = read_annotations(modules)
    emoji = emoji_to_learn(modules, annotations)
    texts = labelled_texts(annotations, emoji)
    full = cn_clip_tokenizer(read_vocabulary(installed_vocabulary()))
    tokenizer = pruned_tokenizer(full, [text.text for text in texts])
    artwork = training_artwork(modules, emoji, options.cache)
    log.info(
        "%d emoji, %d pictures, %d texts, %d word pieces",
        len(emoji),
        len(artwork.emoji),
        len(texts),
        tokenizer.get_vocab_size(),
    )
    train(
        artwork,
        text_data(texts, tokenizer, len(emoji)),
        tokenizer,
        options.cache / "checkpoint.pt",
        seconds=options.hours * 3600,
    )


def train(artwork: Artwork, texts: TextData, tokenizer: Tokenizer, checkpoint: Path, *, seconds: float) -> None:
    """Train until ``seconds`` have been spent, those of earlier runs included.

    Write ``checkpoint`` every two minutes and at the end.
    """
    torch.manual_seed(0)
    learner = Learner(tokenizer.get_vocab_size(), texts.emoji.shape[1])
    averaged = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    run = _Run({"learner": learner, "averaged": averaged, "optimizer": _optimizer(learner)}, tokenizer, checkpoint)
    run.resume()
    torch.manual_seed(run.step)
    _train_both(run, artwork, texts, seconds * JOINT_SHARE)
    _train_texts(run, texts, seconds * JOINT_SHARE, seconds)
    run.save()


def _train_both(run: _Run, artwork: Artwork, texts: TextData, end: float) -> None:
    """Train both halves and the prototypes, until ``end`` seconds have been spent."""
    learner, optimizer = run.state["learner"], run.state["optimizer"]
    supply = batches(artwork, texts, torch.Generator().manual_seed(run.step))
    learner.train()
    while run.spent < end:
        loss, figures = learner.loss(*next(supply))
        _step(optimizer, loss, learner.parameters(), _rate(run.spent / end))
        run.state["averaged"].update_parameters(learner)
        run.tick(figures)


def _train_texts(run: _Run, texts: TextData, start: float, end: float) -> None:
    """Train the averaged model's text half alone, onto prototypes that rest.

    The prototypes find pictures well before texts have learned them by heart.
    """
    learner = run.state["averaged"].module.eval()  # no dropout: there is nothing to generalise in a list of names
    prototypes = functional.normalize(learner.prototypes.detach(), dim=-1)
    generator = torch.Generator().manual_seed(run.step)
    if run.spent < end:
        _fit_projection(learner.clip, prototypes, texts)
    parameters = [*learner.clip.bert.parameters(), learner.clip.text_projection]
    optimizer = torch.optim.AdamW([{"params": parameters, "factor": 0.5}], betas=(0.9, 0.98), weight_decay=0.0)
    while run.spent < end:
        tokens, meanings = text_batch(texts, TEXTS_PER_LATER_STEP, generator)
        cosine = functional.cosine_similarity(text_features(learner.clip, tokens), meanings @ prototypes).mean()
        _step(optimizer, 1 - cosine, parameters, _rate((run.spent - start) / (end - start)))
        run.tick({"alignment": cosine.item()})


def _fit_projection(clip: Any, prototypes: Tensor, texts: TextData) -> None:
    """Turn the text half's projection to what prototypes need, by least squares.

    It has 128 directions of the 512.
    """
    names = texts.shares == texts.shares.max()  # what is shown most
    with torch.no_grad():
        projection = clip.text_projection.clone()
        clip.text_projection.copy_(torch.eye(*projection.shape))
        states = torch.cat(
            [clip.encode_text(tokens)[:, : len(projection)] for tokens in texts.tokens[names].split(256)]
        )
        clip.text_projection.copy_(torch.linalg.lstsq(states, texts.emoji[names] @ prototypes).solution)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor], rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


def _optimizer(learner: Learner) -> torch.optim.Optimizer:
    """Return AdamW for the learner.

    Matrices decay, vectors and the logit scale do not, and the text half learns at half the rate.
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in learner.named_parameters():
        groups.setdefault((name.startswith("clip.bert"), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "factor": 0.5 if text else 1.0, "weight_decay": 0.05 if matrix else 0.0}
            for (text, matrix), parameters in groups.items()
        ],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )


def _rate(progress: float) -> float:
    """Return the learning rate: up in a straight line, then down along half a cosine, to a hundredth."""
    if progress < WARM_UP:
        return PEAK_RATE * max(progress / WARM_UP, 0.01)
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))))


if __name__ == "__main__":
    main()
