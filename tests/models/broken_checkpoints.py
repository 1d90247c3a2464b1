"""Writers of files that are no CN-CLIP checkpoint, each in its own way."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.cnclip_reference import TINY_RESNET, official_checkpoint, random_model


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile-was-here",)


def hostile(path: Path, model: Any) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Hostile()}}, path)


def hostile_legacy(path: Path, model: Any) -> None:
    path.write_bytes(pickle.dumps(Hostile()))


def legacy(path: Path, model: Any) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def compressed(path: Path, model: Any) -> None:
    plain = official_checkpoint(model, path.with_suffix(".plain"))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.namelist():
            archive.writestr(member, source.read(member))


def truncated(path: Path, model: Any) -> None:
    official_checkpoint(model, path)
    path.write_bytes(path.read_bytes()[:100_000])


def web_page(path: Path, model: Any) -> None:
    path.write_text("<html>404</html>")


def empty(path: Path, model: Any) -> None:
    path.write_bytes(b"")


def of_another_form(path: Path, model: Any) -> None:
    torch.save([torch.zeros(1)], path)


def lacking(path: Path, model: Any) -> None:
    torch.save({"state_dict": {k: v for k, v in model.state_dict().items() if k != "visual.proj"}}, path)


def of_other_shapes(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.proj": torch.zeros(3, 3)}}, path)


def of_unknown_names(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.extra": torch.zeros(3)}}, path)


def not_finite(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual.proj": model.visual.proj.detach() * float("nan")}}, path)


def of_zeros(path: Path, model: Any) -> None:
    """Write a projection in whole numbers, which are all zero."""
    projection = model.state_dict()["visual.proj"].to(torch.int8)
    torch.save({"state_dict": {**model.state_dict(), "visual.proj": projection}}, path)


def of_a_zero_text(path: Path, model: Any) -> None:
    projection = torch.zeros_like(model.state_dict()["text_projection"])
    torch.save({"state_dict": {**model.state_dict(), "text_projection": projection}}, path)


def of_many_positions(path: Path, model: Any) -> None:
    positions = "bert.embeddings.position_embeddings.weight"
    rows = torch.zeros(5000, model.state_dict()[positions].shape[1])
    torch.save({"state_dict": {**model.state_dict(), positions: rows}}, path)


def of_a_long_name(path: Path, model: Any) -> None:
    torch.save({"state_dict": {**model.state_dict(), "visual." + "x" * 3_000_000: torch.zeros(3)}}, path)


def of_negative_variance(path: Path, model: Any) -> None:
    resnet = random_model(TINY_RESNET).state_dict()
    torch.save({"state_dict": {**resnet, "visual.bn1.running_var": -resnet["visual.bn1.running_var"]}}, path)


def of_another_vocabulary(path: Path, model: Any) -> None:
    words = "bert.embeddings.word_embeddings.weight"
    torch.save({"state_dict": {**model.state_dict(), words: model.state_dict()[words][:100].clone()}}, path)


def of_few_positions(path: Path, model: Any) -> None:
    positions = "bert.embeddings.position_embeddings.weight"
    torch.save({"state_dict": {**model.state_dict(), positions: model.state_dict()[positions][:20].clone()}}, path)


def without_layers(path: Path, model: Any) -> None:
    torch.save({"state_dict": {k: v for k, v in model.state_dict().items() if "resblocks" not in k}}, path)


def of_odd_width(path: Path, model: Any) -> None:
    words = "bert.embeddings.word_embeddings.weight"
    torch.save({"state_dict": {**model.state_dict(), words: model.state_dict()[words][:, :50].clone()}}, path)
