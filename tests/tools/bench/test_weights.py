"""The random weights of the benchmarks are a CLIP that the service can load, and tells inputs apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.convert import installed_vocabulary
from models.convert.architecture import Architecture, Bert, VisionTransformer
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import read_vocabulary
from runners.engine import open_session, plan_engine
from settings import Settings
from tools.bench.weights import random_clip

NARROW = Architecture(VisionTransformer(64, 16, 128, 2, 2), Bert(21128, 512, 64, 128, 2, 1), 64)


def test_random_weights_make_a_clip_whose_vectors_differ_by_picture_and_by_text(tmp_path: Path) -> None:
    tokenizer = cn_clip_tokenizer(read_vocabulary(installed_vocabulary()))
    folder = random_clip(NARROW, tokenizer, tmp_path / "clip")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    tokens = np.zeros((2, 52), np.int64)
    for row, text in zip(tokens, ("雪地里的狗", "生日蛋糕"), strict=True):
        ids = tokenizer.encode(text).ids[:52]
        row[: len(ids)] = ids
    plan = plan_engine(Settings(device="cpu", precision="fp32"))
    for half, batch in (("visual", pixels), ("textual", tokens)):
        session = open_session(folder / half / "model.onnx", plan)
        (vectors,) = session.run({session.inputs[0].name: batch})
        session.close()
        assert vectors.shape == (2, 64)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        assert np.isfinite(vectors).all()
        assert vectors[0] @ vectors[1] < 0.999
