"""The files of a repository of a hub, with the hub's own digests."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import Any
from urllib.parse import quote

from models.digest import Digest
from models.manifest import Manifest, checked_commit, checked_size, is_wanted
from models.transfer import (
    Interrupted,
    Limits,
    TransferFailed,
    answer_to,
    host_of,
    http_client,
    read_body,
    retrying,
)

log = logging.getLogger(__name__)

_MODELSCOPE_BRANCH = "master"
_LARGEST_LIST = 2**22
"""Bytes, unpacked; a file takes some 300."""
_PROBE = 2**16


def file_url(endpoint: str, repo: str, path: str, revision: str = "main") -> str:
    """Return the address of one file."""
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def list_repository(endpoint: str, repo: str, revision: str = "main", *, limits: Limits) -> Manifest:
    """Ask the Hugging Face hub (or a mirror) for the files of ``repo`` and their digests.

    Listing, rather than asking for names known beforehand, matters for graphs above 2 GB: they keep their weights in
    further files, whose names the exporter drew at random. Raises ``TransferFailed``.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise TransferFailed(f"{host_of(endpoint)} was not asked, since HF_HUB_OFFLINE is set")
    url = f"{endpoint.rstrip('/')}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"

    def manifest(document: Any) -> Manifest:
        files = {item["rfilename"]: _blob(item) for item in document["siblings"] if is_wanted(item["rfilename"])}
        return Manifest(repo, checked_commit(document["sha"]), files)

    return _listed(url, manifest, limits)


def list_modelscope(endpoint: str, repo: str, *, limits: Limits) -> Manifest:
    """Ask ModelScope (or a mirror) for the files of ``repo`` and their digests. Raises ``TransferFailed``."""
    url = f"{endpoint.rstrip('/')}/api/v1/models/{repo}/repo/files?Revision={_MODELSCOPE_BRANCH}&Recursive=true"

    def manifest(document: Any) -> Manifest:
        files = {
            item["Path"]: (Digest.parse(f"sha256:{item['Sha256']}"), checked_size(item["Size"]))
            for item in document["Data"]["Files"]
            if item["Type"] == "blob" and is_wanted(item["Path"])
        }
        return Manifest(repo, _MODELSCOPE_BRANCH, files)

    return _listed(url, manifest, limits)


def modelscope_url(endpoint: str, repo: str, path: str) -> str:
    """Return the address of one file on ModelScope."""
    return f"{endpoint.rstrip('/')}/models/{repo}/resolve/{_MODELSCOPE_BRANCH}/{quote(path)}"


def by_speed(urls: Sequence[str], limits: Limits, *, wait: float = 6.0) -> list[str]:
    """Ask all ``urls`` at once, and return them with that one first which is the first to send 64 kB.

    The others stay in their order, as do all where none answers within ``wait`` seconds.
    """
    answers: Queue[tuple[str, bool]] = Queue()
    began = time.monotonic()

    def ask(url: str) -> None:
        answered = False
        try:
            answered = _answers(url, limits, began + wait)
        finally:  # whatever happened, nobody waits for this one
            answers.put((url, answered))

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    for _ in urls:
        try:
            url, answered = answers.get(timeout=max(0.0, began + wait - time.monotonic()))
        except Empty:
            break
        if answered:
            log.info("%s answers first, after %.2f s.", host_of(url), time.monotonic() - began)
            return [url, *(other for other in urls if other != url)]
    return list(urls)


def _answers(url: str, limits: Limits, end: float) -> bool:
    """Return whether ``url`` sends 64 kB, or all that it has, before ``end`` of the monotonic clock."""
    try:
        with (
            http_client(limits) as client,
            answer_to(client, url, limits, {"Range": f"bytes=0-{_PROBE - 1}"}) as response,
        ):
            read = 0
            for chunk in response.iter_raw():
                read += len(chunk)
                if read >= _PROBE:
                    break
                if time.monotonic() > end:
                    return False
            return read > 0
    except (Interrupted, TransferFailed):
        return False


def _listed(url: str, manifest: Callable[[Any], Manifest], limits: Limits) -> Manifest:
    """Return what ``manifest`` makes of the JSON at ``url``, of which a bounded part is read. Raises
    ``TransferFailed``.
    """

    def attempt() -> bytes:
        with http_client(limits) as client, answer_to(client, url, limits) as response:
            return read_body(response, _LARGEST_LIST, limits)

    body = retrying(attempt, limits)
    try:
        return manifest(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TransferFailed(
            f"{host_of(url)} answered with something that is no list of files with digests ({repr(error)[:200]})"
        ) from error


def _blob(item: Mapping[str, Any]) -> tuple[Digest, int]:
    """Return digest and bytes. Large files have the sha256 of their bytes, small ones git's object id."""
    large = item.get("lfs")
    if large is not None:
        return Digest.parse(f"sha256:{large['sha256']}"), checked_size(large["size"])
    return Digest.parse(f"git-sha1:{item['blobId']}"), checked_size(item["size"])
