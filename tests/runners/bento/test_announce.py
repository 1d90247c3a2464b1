"""What is said once the service listens."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

import models
from models.catalog import load_catalog
from runners.bento import announce
from runners.bento.announce import announcement, lan_address
from settings import Settings
from tools.harness.tiny_clip import tiny_clip_folder


def lines(tmp_path: Path, address: str = "http://localhost:3003", **changes: Any) -> list[str]:
    changes = {"cache_folder": tmp_path, **changes}
    return announcement(Settings(_env_file=None, **changes), load_catalog(), address)


def test_with_nothing_set_it_says_what_immich_asks_for_and_what_must_be_downloaded(tmp_path: Path) -> None:
    clip, faces, ocr, listening = lines(tmp_path)
    assert clip.startswith("clip: what Immich asks for; its default is ViT-B-32__openai, which is downloaded when")
    assert str(tmp_path / "clip/ViT-B-32__openai") in clip
    assert faces.startswith("facial-recognition: what Immich asks for; its default is buffalo_l, ")
    assert ocr.startswith("ocr: what Immich asks for; its default is PP-OCRv5_mobile, ")
    assert [line.partition(" (")[2].partition(")")[0] for line in (clip, faces, ocr)] == ["608 MB", "191 MB", "22 MB"]
    assert listening.startswith("Listening on http://localhost:3003. Immich's machine learning URL: http://")


def test_a_model_that_is_here_is_told_with_its_place(tmp_path: Path) -> None:
    tiny_clip_folder(tmp_path / "clip/ViT-B-16")
    clip, faces, ocr, _ = lines(
        tmp_path, clip_model="ViT-B-16", recognition_model="buffalo_s", ocr_model="PP-OCRv6_small"
    )
    assert clip.startswith(f"clip: every request is answered by ViT-B-16, in {tmp_path / 'clip/ViT-B-16'}")
    assert faces.startswith(
        "facial-recognition: every request is answered by buffalo_s, comes with an installed package"
    )
    assert ocr.startswith("ocr: every request is answered by PP-OCRv6_small, comes with an installed package")


def test_the_model_of_this_project_is_told_with_the_whole_of_its_folder(tmp_path: Path) -> None:
    clip, *_ = lines(tmp_path, clip_model="tiny")
    weights = Path(models.__file__).parent / "tiny/weights"
    assert clip.startswith(f"clip: every request is answered by cn-clip-tiny, comes with this project, {weights}. ")
    assert "knows emoji, not photos" in clip


@pytest.mark.parametrize(("name", "size"), [("ViT-L-14", "1626 MB"), ("QA-CLIP-ViT-B-16", "1570 MB")])
def test_a_checkpoint_is_told_with_the_size_of_what_is_downloaded(name: str, size: str, tmp_path: Path) -> None:
    clip, *_ = lines(tmp_path, clip_model=name)
    assert f"{name}, which is being fetched ({size}) to {tmp_path / 'clip' / name}" in clip


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    clip, *_ = lines(tmp_path, offline=True)
    assert "OFFLINE forbids to download it: " in clip


def test_a_routed_task_is_told_without_the_addresses_of_others(tmp_path: Path) -> None:
    clip, *_ = lines(tmp_path, route_clip="upstream", immich_api="http://a:1,http://b:2")
    assert clip == "clip: answered by 2 other servers (IMMICH_API)."
    clip, *_ = lines(tmp_path, route_clip="upstream", immich_api="http://a:1", immich_api_clip="dns://clip:3003")
    assert clip == "clip: answered by the servers that dns://clip:3003 names (IMMICH_API)."


@pytest.mark.parametrize(
    ("address", "lan", "told"),
    [
        ("http://localhost:3003", "192.168.1.7", "URL: http://192.168.1.7:3003"),
        ("http://localhost:3003", None, f"URL: http://{socket.gethostname()}:3003"),
        ("http://127.0.0.1:3003", "192.168.1.7", "URL, from this machine alone: http://127.0.0.1:3003"),
        ("http://10.1.2.3:80", "192.168.1.7", "URL: http://10.1.2.3:80"),
        ("http://[fd00::2]:3003", None, "URL: http://[fd00::2]:3003"),
    ],
)
def test_the_url_for_immich_has_this_machines_address(
    address: str, lan: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "lan_address", lambda: lan)
    assert lines(tmp_path, address)[-1].endswith(told)


def test_the_lan_address_is_no_loopback_address() -> None:
    found = lan_address()
    assert found is None or not ipaddress.ip_address(found).is_loopback


def test_the_key_in_immichs_url_is_not_told(tmp_path: Path) -> None:
    *_, listening = lines(tmp_path, "http://127.0.0.1:3003", url_key="correct-horse-battery")
    assert listening.endswith("http://127.0.0.1:3003/<URL_KEY>/")
