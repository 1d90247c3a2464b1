"""A download ends with the right bytes under the right name, or with an error and nothing that passes for a model."""

from __future__ import annotations

import hashlib
import logging
import random
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.digest import Digest
from models.download import RemoteFile, download
from models.transfer import TransferFailed
from tests.models.conftest import QUICK
from tools.harness.fake_hub import Fault, Web

DATA = random.Random(1).randbytes(300_000)


def _remote(web: Web, data: bytes = DATA, *, size: bool = True) -> RemoteFile:
    web.files.setdefault("/m.onnx", data)
    return RemoteFile(
        web.url + "/m.onnx", Digest("sha256", hashlib.sha256(data).hexdigest()), len(data) if size else None
    )


def _partials(folder: Path) -> list[Path]:
    return list(folder.glob("*.partial"))


def test_a_whole_file_arrives_under_its_name_with_one_line_in_the_log(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    download(_remote(web), tmp_path / "m.onnx", title="m.onnx of test", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    assert not _partials(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"Downloading m.onnx of test from {web.url[7:]}, 0.3 MB"
    ]


@pytest.mark.parametrize("known", [True, False])
def test_a_connection_that_is_cut_is_gone_on_with_where_it_broke(web: Web, tmp_path: Path, known: bool) -> None:
    remote = _remote(web, size=known)
    web.faults["/m.onnx"] = [Fault(cut_after=100_000), Fault(cut_after=50_000)]
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    assert web.gets("/m.onnx") == [None, "bytes=100000-", "bytes=150000-"]


def test_a_connection_cut_more_often_than_there_are_attempts_still_ends_well_while_bytes_come(
    web: Web, tmp_path: Path
) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(cut_after=20_000)] * 10
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_what_a_broken_download_left_is_used_by_the_next_one(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(cut_after=100_000), *[Fault(status=503)] * 3]
    with pytest.raises(TransferFailed, match="answered 503"):
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert not (tmp_path / "m.onnx").exists()
    assert len(_partials(tmp_path)) == 1
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert web.gets("/m.onnx")[-1] == "bytes=100000-"
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_a_server_without_ranges_is_read_from_the_beginning(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(cut_after=100_000), Fault(no_ranges=True)]
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_a_stall_is_given_up_and_gone_on_with(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(stall_after=70_000)]
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert web.gets("/m.onnx") == [None, "bytes=70000-"]
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_stalls_without_end_are_an_error(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(stall_after=0)] * 5
    with pytest.raises(TransferFailed, match="sent nothing for"):
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert len(web.asked) == QUICK.attempts


def test_a_connection_that_drips_is_given_up_like_a_stall_and_gone_on_with(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    web.rate = 1000
    with pytest.raises(TransferFailed, match=r"sent only [\d,]+ bytes in 0\.3 s"):
        download(remote, tmp_path / "m.onnx", title="t", limits=replace(QUICK, least_rate=50_000.0, rate_over=0.3))
    assert len(web.asked) == QUICK.attempts
    web.rate = None
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert web.gets("/m.onnx")[-1] not in (None, "bytes=0-")
    assert (tmp_path / "m.onnx").read_bytes() == DATA


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_a_passing_error_is_tried_again(web: Web, tmp_path: Path, status: int) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(status=status)] * 2
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert len(web.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_lasting_error_is_not_tried_again(web: Web, tmp_path: Path, status: int) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(status=status)]
    with pytest.raises(TransferFailed, match=f"answered {status}") as caught:
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert caught.value.status == status
    assert len(web.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_server_that_asks_for_a_short_wait_gets_it_and_one_that_asks_for_a_long_one_does_not(
    web: Web, tmp_path: Path
) -> None:
    remote = _remote(web)
    web.faults["/m.onnx"] = [Fault(status=429, headers={"Retry-After": "0"})]
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    web.faults["/m.onnx"] = [Fault(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(TransferFailed, match="asks to wait 3600 s"):
        download(remote, tmp_path / "n.onnx", title="t", limits=QUICK)


@pytest.mark.parametrize(
    ("body", "known", "complaint"),
    [
        (bytes(len(DATA)), True, "sent 300,000 bytes whose digest is sha256:"),
        (DATA[:-1], True, "has a file of 299,999 bytes, not of 300,000"),
        (DATA + b"x", True, "has a file of 300,001 bytes, not of 300,000"),
        (DATA[:-1], False, "sent 299,999 bytes whose digest is sha256:"),
        (b"", False, "sent 0 bytes whose digest is sha256:"),
    ],
)
def test_wrong_bytes_are_never_given_the_name(
    web: Web, tmp_path: Path, body: bytes, known: bool, complaint: str
) -> None:
    web.files["/m.onnx"] = body
    with pytest.raises(TransferFailed, match=complaint):
        download(_remote(web, size=known), tmp_path / "m.onnx", title="t", limits=QUICK)
    assert not list(tmp_path.iterdir())


def test_a_partial_file_of_wrong_bytes_costs_one_whole_download_and_no_more(web: Web, tmp_path: Path) -> None:
    remote = _remote(web)
    (tmp_path / f"m.onnx.{remote.digest.value[:12]}.partial").write_bytes(bytes(1000))
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert web.gets("/m.onnx") == ["bytes=1000-", None]
    assert (tmp_path / "m.onnx").read_bytes() == DATA


@pytest.mark.parametrize("known", [True, False])
def test_a_partial_file_that_is_whole_only_needs_its_name(web: Web, tmp_path: Path, known: bool) -> None:
    remote = _remote(web, size=known)
    (tmp_path / f"m.onnx.{remote.digest.value[:12]}.partial").write_bytes(DATA)
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    assert web.gets("/m.onnx") == ([] if known else ["bytes=300000-"])


@pytest.mark.parametrize("known", [True, False])
def test_a_partial_file_longer_than_the_file_is_dropped(web: Web, tmp_path: Path, known: bool) -> None:
    remote = _remote(web, size=known)
    (tmp_path / f"m.onnx.{remote.digest.value[:12]}.partial").write_bytes(DATA + DATA)
    download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_a_partial_file_of_another_version_is_left_alone_and_then_removed(web: Web, tmp_path: Path) -> None:
    (tmp_path / "m.onnx.000000000000.partial").write_bytes(b"old")
    download(_remote(web), tmp_path / "m.onnx", title="t", limits=QUICK)
    assert web.gets("/m.onnx") == [None]
    assert not _partials(tmp_path)


def test_a_host_that_refuses_connections_is_named_and_given_up(tmp_path: Path) -> None:
    remote = RemoteFile("http://127.0.0.1:9/m.onnx", Digest("sha256", "0" * 64), None)
    with pytest.raises(TransferFailed, match=r"127\.0\.0\.1:9: no connection"):
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert not list(tmp_path.iterdir())


def test_a_host_that_takes_connections_but_never_answers_is_not_tried_twice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        remote = RemoteFile(f"http://127.0.0.1:{server.getsockname()[1]}/m.onnx", Digest("sha256", "0" * 64), None)
        limits = replace(QUICK, read=30.0, answer=0.3, unreachable=0.2, attempts=50)
        began = time.monotonic()
        with pytest.raises(TransferFailed, match=r"did not answer within 0\.3 s"):
            download(remote, tmp_path / "m.onnx", title="t", limits=limits)
        assert time.monotonic() - began < 10  # fifty attempts would take 15


def test_an_address_that_is_none_is_an_error_and_no_crash(tmp_path: Path) -> None:
    remote = RemoteFile("http://[::/m.onnx", Digest("sha256", "0" * 64), None)
    with pytest.raises(TransferFailed, match="cannot be fetched"):
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.one_of(
            st.builds(Fault, cut_after=st.integers(0, 40_000)),
            st.builds(Fault, status=st.sampled_from([404, 416, 429, 500, 503])),
            st.builds(Fault, body=st.binary(max_size=300)),
            st.builds(Fault, no_ranges=st.just(True), cut_after=st.integers(0, 40_000)),
        ),
        max_size=5,
    ),
    size=st.booleans(),
)
def test_whatever_goes_wrong_the_name_only_ever_stands_for_the_right_bytes(
    web: Web, tmp_path: Path, faults: list[Fault], size: bool
) -> None:
    data, target = DATA[:50_000], tmp_path / "m.onnx"
    target.unlink(missing_ok=True)
    web.files["/m.onnx"] = data
    web.faults["/m.onnx"] = list(faults)
    remote = _remote(web, data, size=size)
    try:
        download(remote, target, title="t", limits=replace(QUICK, backoff=0.0))
    except TransferFailed:
        assert not target.exists()
        web.faults["/m.onnx"] = []
        download(remote, target, title="t", limits=QUICK)
    assert target.read_bytes() == data
