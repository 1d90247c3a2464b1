"""The files of a repository of a hub, with the hub's own digests."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from queue import Empty, Queue
from typing import TYPE_CHECKING
from urllib.parse import quote

from models.digest import Digest
from models.manifest import Manifest, checked_commit, checked_size, is_wanted
from models.transfer import (
    Interrupted,
    Limits,
    NoAnswer,
    TransferFailed,
    answer_to,
    basic_authorization,
    host_of,
    http_client,
    judge,
    retrying,
    within,
    without_credentials,
)

if TYPE_CHECKING:  # imported where it is used: it costs 10 MB and 0.2 s, for downloads alone
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

log = logging.getLogger(__name__)

_MODELSCOPE_BRANCH = "master"
_LARGEST_LIST = 2**24
_PROBE = 2**16


def file_url(endpoint: str, repo: str, path: str, revision: str = "main") -> str:
    """Return the address of one file."""
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def list_repository(endpoint: str, repo: str, revision: str = "main", *, limits: Limits) -> Manifest:
    """Ask the hub (or a mirror) for the files of ``repo`` and their digests.

    Listing, rather than asking for names known beforehand, matters for graphs above 2 GB: they keep their weights in
    further files, whose names the exporter drew at random. Raises ``TransferFailed``.
    """
    info = retrying(lambda: _model_info(endpoint, repo, revision, limits), limits)
    try:
        files = {file.rfilename: _blob(file) for file in info.siblings or [] if is_wanted(file.rfilename)}
        return Manifest(repo, checked_commit(info.sha), files)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _no_list(endpoint, error) from error


def _model_info(endpoint: str, repo: str, revision: str, limits: Limits) -> ModelInfo:
    # Otherwise the library may ask the endpoint for a list of programs that it then looks for in the environment.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    bare, credentials = without_credentials(endpoint.rstrip("/"))
    headers = {"Authorization": basic_authorization(*credentials)} if credentials else None
    # No token: the one that huggingface_hub finds in the user's home is not for mirrors.
    api = HfApi(endpoint=bare, token=False, headers=headers, library_name="immich-bento")
    try:
        return within(
            limits.answer,
            lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=limits.answer),
        )
    except OfflineModeIsEnabled:
        raise TransferFailed(f"{host_of(bare)} was not asked, since HF_HUB_OFFLINE is set") from None
    except HfHubHTTPError as error:
        judge(
            error.response.status_code, error.response.headers.get("Retry-After", ""), str(error.response.request.url)
        )
        raise _no_list(bare, error) from error
    except (httpx2.TimeoutException, NoAnswer) as error:
        raise Interrupted(f"{host_of(bare)} did not answer within {limits.answer:g} s", answered=False) from error
    except httpx2.HTTPError as error:
        raise Interrupted(f"{host_of(bare)}: no connection ({error})", answered=False) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _no_list(bare, error) from error


def list_modelscope(endpoint: str, repo: str, *, limits: Limits) -> Manifest:
    """Ask ModelScope (or a mirror) for the files of ``repo`` and their digests. Raises ``TransferFailed``."""
    url = f"{endpoint.rstrip('/')}/api/v1/models/{repo}/repo/files?Revision={_MODELSCOPE_BRANCH}&Recursive=true"

    def attempt() -> bytes:
        with http_client(limits) as client, answer_to(client, url, limits) as response:
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _LARGEST_LIST:
                    raise TransferFailed(f"{host_of(url)} answered with more than a list of files")
            return body

    try:
        items = json.loads(retrying(attempt, limits))["Data"]["Files"]
        files = {
            item["Path"]: (Digest.parse(f"sha256:{item['Sha256']}"), checked_size(item["Size"]))
            for item in items
            if item["Type"] == "blob" and is_wanted(item["Path"])
        }
        return Manifest(repo, _MODELSCOPE_BRANCH, files)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _no_list(url, error) from error


def modelscope_url(endpoint: str, repo: str, path: str) -> str:
    """Return the address of one file on ModelScope."""
    return f"{endpoint.rstrip('/')}/models/{repo}/resolve/{_MODELSCOPE_BRANCH}/{quote(path)}"


def by_speed(urls: Sequence[str], limits: Limits, *, wait: float = 6.0) -> list[str]:
    """Ask all ``urls`` at once, and return them with that one first which is the first to send 64 kB.

    The others stay in their order, as do all where none answers within ``wait`` seconds.
    """
    answers: Queue[tuple[str, bool]] = Queue()
    began = time.monotonic()
    for url in urls:
        threading.Thread(target=lambda url=url: answers.put((url, _answers(url, limits))), daemon=True).start()
    for _ in urls:
        try:
            url, answered = answers.get(timeout=max(0.0, began + wait - time.monotonic()))
        except Empty:
            break
        if answered:
            log.info("%s answers first, after %.2f s.", host_of(url), time.monotonic() - began)
            return [url, *(other for other in urls if other != url)]
    return list(urls)


def _answers(url: str, limits: Limits) -> bool:
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
            return read > 0
    except (Interrupted, TransferFailed):
        return False


def _no_list(endpoint: str, error: Exception) -> TransferFailed:
    return TransferFailed(
        f"{host_of(endpoint)} answered with something that is no list of files with digests ({error!r})"
    )


def _blob(file: RepoSibling) -> tuple[Digest, int]:
    """Return digest and bytes. Large files have the sha256 of their bytes, small ones git's object id."""
    if file.lfs is not None:
        return Digest.parse(f"sha256:{file.lfs.sha256}"), checked_size(file.lfs.size)
    return Digest.parse(f"git-sha1:{file.blob_id}"), checked_size(file.size)
