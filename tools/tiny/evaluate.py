"""The recall of cn-clip-tiny on a set of emoji that it never saw, by their names: ``python -m tools.tiny.evaluate``.

Queries are CLDR's short names, of which no two are alike; candidates all of OpenMoji's pictures of the emoji learned
(no skin tones, directions and country flags), as PNG of 256 pixels on white. Both go through the service's own
preprocessing and inference.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runners.clip import load_clip_image, load_clip_text
from runners.contract import Embedding, Failure, Float32, ImageJob, TextJob
from runners.engine import EnginePlan, Session, open_session
from tools.tiny.artwork import HELD_OUT, drawn_in, fetch_packages, held_out_pictures
from tools.tiny.export import WEIGHTS
from tools.tiny.texts import LANGUAGES, emoji_to_learn, read_annotations
from tools.tiny.train import DEFAULT_CACHE

NAME = "cn-clip-tiny"
_BATCH = 64


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The test set: pictures that training never sees, and their names."""

    emoji: tuple[str, ...]
    pictures: tuple[bytes, ...]
    """PNG, in the order of ``emoji``."""
    names: Mapping[str, tuple[str, ...]]
    """By language, in the order of ``emoji``."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of the queries, 0 to 1, whose emoji is the first, or among the first ten."""

    at_1: float
    at_10: float


def read_held_out(cache: Path) -> HeldOut:
    """Fetch what is missing and render. Raise ``subprocess.CalledProcessError`` if npm fails."""
    modules = fetch_packages(cache)
    annotations = read_annotations(modules)
    drawn = drawn_in(modules, HELD_OUT)
    emoji = [code for code in emoji_to_learn(modules, annotations) if code in drawn]
    names = {language: tuple(annotations[language][code].name for code in emoji) for language in LANGUAGES}
    pictures = []
    for picture in held_out_pictures(modules, emoji):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        pictures.append(buffer.getvalue())
    return HeldOut(tuple(emoji), tuple(pictures), names)


def recall(texts: Float32, pictures: Float32, wanted: Sequence[int] | None = None) -> Recall:
    """Return the recall of (q, d) vectors of queries among (n, d) vectors of pictures.

    ``wanted``: (q,) the row of the picture that each query is for; by default the query's own row. Pictures that score
    the same as the one wanted count as found before it.
    """
    scores = texts @ pictures.T
    rows = np.arange(len(texts))
    targets = rows if wanted is None else np.asarray(wanted)
    rank = (scores >= scores[rows, targets][:, None]).sum(1)
    return Recall(float((rank <= 1).mean()), float((rank <= 10).mean()))


def embed(held_out: HeldOut, folder: Path, plan: EnginePlan) -> tuple[Float32, dict[str, Float32]]:
    """Return vectors (n, 512) of the pictures, and of their names by language."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    def open_here(path: Path) -> Session:
        return open_session(path, plan)

    image_model = load_clip_image("cn-clip", files, open_here, max_pixels=10**8)
    text_model = load_clip_text(NAME, "cn-clip", files, open_here)
    jobs = [ImageJob(data, NAME) for data in held_out.pictures]
    pictures = [
        result for start in range(0, len(jobs), _BATCH) for result in image_model.run(jobs[start : start + _BATCH])
    ]
    texts = {}
    for language, names in held_out.names.items():
        queries = [TextJob(name, NAME) for name in names]
        texts[language] = _vectors(
            [
                result
                for start in range(0, len(queries), _BATCH)
                for result in text_model.run(queries[start : start + _BATCH])
            ]
        )
    image_model.close()
    text_model.close()
    return _vectors(pictures), texts


def main() -> None:
    """Print recall by language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"artwork ({DEFAULT_CACHE})")
    parser.add_argument("--model", type=Path, default=WEIGHTS, help=f"folder of the model ({WEIGHTS})")
    parser.add_argument("--device", choices=("cpu", "openvino"), default="cpu")
    options = parser.parse_args()
    held_out = read_held_out(options.cache)
    pictures, texts = embed(held_out, options.model, EnginePlan(options.device, threads=2))
    print(f"{len(held_out.emoji)} emoji of {HELD_OUT}, text to image, {options.device}")  # noqa: T201
    for language, vectors in texts.items():
        found = recall(vectors, pictures)
        print(f"{language:8} R@1 {found.at_1:.3f}   R@10 {found.at_10:.3f}")  # noqa: T201


def _vectors(results: Sequence[Embedding | Failure]) -> Float32:
    vectors = []
    for result in results:
        if isinstance(result, Failure):
            result.raise_()
        else:
            vectors.append(result.vector)
    return np.stack(vectors)


if __name__ == "__main__":
    main()
