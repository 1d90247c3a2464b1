"""Folders whose digests nobody knows are taken as they are, and only whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelKind, load_catalog
from models.places import cache_folder
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK, write_files

MakeSettings = Callable[..., Settings]

CATALOG = load_catalog()


def test_a_cn_clip_folder_is_taken_as_it_is_and_the_log_says_which(
    make_settings: MakeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    entry, root = CATALOG.find(ModelKind.CLIP, "ViT-B-16"), tmp_path / "root"
    names = [file.name for file in entry.files]
    settings = make_settings(clip_download_root=root)
    write_files(cache_folder(entry, settings), names)
    assert resolve(entry, settings)["config.json"] == cache_folder(entry, settings) / "config.json"
    write_files(root / "ViT-B-16", names)
    assert resolve(entry, settings) == {name: root / "ViT-B-16" / name for name in names}  # comes first
    assert f"is taken from {root / 'ViT-B-16'} as it is" in caplog.text


def test_a_cn_clip_folder_of_which_a_file_is_missing_is_not_taken(make_settings: MakeSettings, tmp_path: Path) -> None:
    entry = CATALOG.find(ModelKind.CLIP, "ViT-B-16")
    write_files(tmp_path / "ViT-B-16", ["visual/model.onnx", "visual/preprocess_cfg.json", "config.json"])
    settings = make_settings(clip_download_root=tmp_path)
    assert set(resolve(entry, settings, "visual")) == {"visual/model.onnx", "visual/preprocess_cfg.json", "config.json"}
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, "textual", limits=QUICK)
    for part in (
        "ViT-B-16: lacks textual/model.onnx",
        str(cache_folder(entry, settings)) + ": no such folder",
        "models convert CHECKPOINT --as ViT-B-16",
    ):
        assert part in str(caught.value)


def test_a_folder_of_the_users_is_served_from_where_it_is(make_settings: MakeSettings, tmp_path: Path) -> None:
    write_files(tmp_path / "mine", ["detection/model.onnx", "recognition/model.onnx", "recognition/dict.txt"])
    toml = tmp_path / "own.toml"
    toml.write_text(f'[[models]]\nname = "mine"\nfamily = "pp-ocr"\nadvice = "Mine."\nfolder = "{tmp_path / "mine"}"\n')
    entry = load_catalog(toml).find(ModelKind.OCR, "mine")
    assert set(resolve(entry, make_settings(), "recognition")) == {"recognition/model.onnx", "recognition/dict.txt"}
    (tmp_path / "mine/detection/model.onnx").unlink()
    with pytest.raises(ModelUnavailable, match="put the files back into"):
        resolve(entry, make_settings())
