"""Walking folders and what fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options
from hypothesis import given
from hypothesis import strategies as st

from search.indexing.formats import Kind
from search.indexing.places import Entry, PlaceError, exists, local_path, local_uri, open_file, place


def walked(address: str) -> tuple[list[Entry], list[str]]:
    failed: list[str] = []
    return sorted(place(address).walk(lambda folder, why: failed.append(folder)), key=lambda entry: entry.uri), failed


def test_pictures_and_videos_are_found_at_any_depth_with_size_and_date(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.JPG").write_bytes(b"12345")
    (tmp_path / "two.mov").write_bytes(b"")
    (tmp_path / "three.HEIC").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    os.utime(tmp_path / "two.mov", ns=(0, 1_700_000_000_123_456_789))
    entries, failed = walked(str(tmp_path))
    assert not failed
    assert [(Path(entry.uri).name, entry.kind, entry.size) for entry in entries] == [
        ("one.JPG", Kind.IMAGE, 5),
        ("three.HEIC", Kind.IMAGE, 0),
        ("two.mov", Kind.VIDEO, 0),
    ]
    assert entries[2].modified == datetime.fromtimestamp(1_700_000_000, timezone.utc).replace(microsecond=123456)


def test_hidden_files_and_what_a_nas_keeps_beside_them_are_passed_over(tmp_path: Path) -> None:
    for name in (".cache", "@eaDir", "#recycle", "$RECYCLE.BIN"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thumb.jpg").write_bytes(b"")
    (tmp_path / "._one.jpg").write_bytes(b"")
    assert walked(str(tmp_path)) == ([], [])


def test_links_to_folders_and_pipes_are_passed_over_and_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"1")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "one.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    entries, failed = walked(str(tmp_path))
    assert [Path(entry.uri).name for entry in entries] == ["link.jpg", "one.jpg"]
    assert not failed
    with pytest.raises(OSError, match="not a file"):
        open_file(str(tmp_path / "pipe.jpg"))


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    entries, failed = walked(str(tmp_path / "gone"))
    assert not entries
    assert failed == [str(tmp_path / "gone")]


def test_one_file_is_a_place_too(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"1")
    (entry,), _ = walked(str(tmp_path / "one.jpg"))
    assert entry.uri == str(tmp_path / "one.jpg")


def test_a_relative_path_and_a_file_address_name_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one two.jpg").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    (relative,), _ = walked(".")
    (addressed,), _ = walked(f"file://{tmp_path}")
    assert relative == addressed
    assert relative.uri == str(tmp_path / "one two.jpg")


def test_memory_stands_for_every_place_of_fsspec() -> None:
    system = fsspec.filesystem("memory")
    for name, data in (
        ("/library/2024/one.jpg", b"123"),
        ("/library/two.mp4", b""),
        ("/library/@eaDir/three.jpg", b""),
        ("/else/x.jpg", b""),
    ):
        system.pipe_file(name, data)
    try:
        entries, failed = walked("memory://library")
        assert [(entry.uri, entry.size) for entry in entries] == [
            ("memory:///library/2024/one.jpg", 3),
            ("memory:///library/two.mp4", 0),
        ]
        assert not failed
        assert all(entry.modified is not None for entry in entries)
        assert exists(entries[0].uri)
        assert not exists("memory:///library/gone.jpg")
        assert open_file(entries[0].uri).read() == b"123"
        assert place("memory://library").uri == "memory:///library"
        assert walked("memory://nowhere") == ([], ["memory:///nowhere"])
    finally:
        system.rm("/library", recursive=True)
        system.rm("/else", recursive=True)


def test_an_address_that_nothing_here_can_open_is_one_sentence() -> None:
    with pytest.raises(PlaceError, match=r"nope://x cannot be opened"):
        place("nope://x")


@given(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_any_name_of_a_file_survives_the_way_into_the_database_and_back(name: bytes) -> None:
    path = os.fsdecode(b"/photos/" + name)
    uri = local_uri(path)
    assert uri.encode("utf-8")
    assert os.fsencode(str(local_path(uri))) == b"/photos/" + name


class HostSystem(MemoryFileSystem):  # type: ignore[misc]
    """As fsspec's sftp: its host is an argument, its paths do not say it, and its ``ls`` takes no ``refresh``."""

    protocol = "hosted"

    def __init__(self, host: str, username: str | None = None, **options: object) -> None:
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(infer_storage_options(path)["path"])

    @staticmethod
    def _get_kwargs_from_urls(address: str) -> dict[str, object]:
        options = infer_storage_options(address)
        return {name: value for name, value in options.items() if name not in ("path", "protocol")}

    def ls(self, path: str, detail: bool = False) -> list[object]:
        return list(super().ls(path, detail=detail))


@pytest.fixture
def _hosted() -> Iterator[None]:
    fsspec.register_implementation("hosted", HostSystem, clobber=True)
    memory = MemoryFileSystem()
    memory.pipe("/hosted/album/one.jpg", b"123")
    yield
    memory.rm("/hosted", recursive=True)


@pytest.mark.usefixtures("_hosted")
def test_a_place_that_has_a_host_keeps_it_in_the_names_of_its_files() -> None:
    entries, failed = walked("hosted://ann@nas:2222/hosted")
    assert not failed
    assert [entry.uri for entry in entries] == ["hosted://ann@nas:2222/hosted/album/one.jpg"]
    assert place("hosted://ann@nas:2222/hosted/").uri == "hosted://ann@nas:2222/hosted"
    assert exists(entries[0].uri)
    with open_file(entries[0].uri) as file:
        assert file.read() == b"123"


@pytest.mark.parametrize("address", ["hosted://ann:s3cret@nas/hosted", "s3://key:s3cret@bucket/a"])
def test_an_address_with_a_password_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(PlaceError, match="password") as refused:
        place(address)
    assert "s3cret" not in str(refused.value)
