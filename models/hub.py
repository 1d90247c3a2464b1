"""What a repository of the Hugging Face hub holds, with the digests that the hub itself gives, and a record of it on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from models.digest import Digest, write_json
from models.download import RemoteFile
from models.transfer import Patience, TransferFailed, answer_to, host_of, http_client, retrying

_MANIFEST = ".manifest.json"
# Forms of the same weights for other engines, which Immich keeps beside the ONNX files.
_OTHER_ENGINES = (".armnn", ".rknn")
_LARGEST_LIST = 2**24


def file_url(endpoint: str, repo: str, path: str, revision: str = "main") -> str:
    """The address of one file."""
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one revision of a repository."""

    repo: str
    commit: str
    files: Mapping[str, tuple[Digest, int]]
    """Digest and bytes by path."""

    def remote(self, endpoint: str, path: str) -> RemoteFile:
        """Where one of the files is fetched from."""
        digest, size = self.files[path]
        return RemoteFile(file_url(endpoint, self.repo, path, self.commit), digest, size)


def list_repository(endpoint: str, repo: str, revision: str = "main", patience: Patience | None = None) -> Manifest:
    """Ask the hub (or a mirror) for the files of ``repo``: ``GET /api/models/<repo>/revision/<revision>?blobs=true``.

    Listing, rather than asking for names known beforehand, matters for graphs above 2 GB: they keep their weights in
    further files, whose names the exporter drew at random. Raises ``TransferFailed``.
    """
    patience = patience or Patience()
    url = f"{endpoint.rstrip('/')}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"

    def attempt() -> bytes:
        with http_client(patience) as client, answer_to(client, url, patience) as response:
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _LARGEST_LIST:
                    raise TransferFailed(f"{host_of(url)} answered with more than a list of files")
            return body

    try:
        document = json.loads(retrying(attempt, patience))
        files = {item["rfilename"]: _blob(item) for item in document["siblings"] if _is_wanted(item["rfilename"])}
        return Manifest(repo, _commit(document["sha"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransferFailed(f"{host_of(url)} answered with something that is no list of files with digests ({error!r})") from error


def _blob(item: Mapping[str, Any]) -> tuple[Digest, int]:
    """Large files have the sha256 of their bytes, small ones git's object id."""
    lfs = item.get("lfs")
    if lfs is not None:
        return Digest.parse(f"sha256:{lfs['sha256']}"), int(lfs["size"])
    return Digest.parse(f"git-sha1:{item['blobId']}"), int(item["size"])


def _commit(value: object) -> str:
    if not isinstance(value, str) or not value.isalnum():
        raise ValueError(f"{value!r} is no commit")
    return value


def _is_wanted(path: str) -> bool:
    """Files at the top or one folder down, for this engine, whose names cannot lead elsewhere."""
    parts = path.split("/")
    if len(parts) > 2 or "\\" in path or path.endswith(_OTHER_ENGINES):
        return False
    return all(part and not part.startswith(".") for part in parts)


def read_manifest(folder: Path) -> Manifest | None:
    """What ``write_manifest`` left in ``folder``; None where there is none, or none that can be read."""
    try:
        document = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = {path: (Digest.parse(item["digest"]), int(item["bytes"])) for path, item in document["files"].items() if _is_wanted(path)}
        return Manifest(str(document["repo"]), _commit(document["commit"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Record beside the files what they must be, so that later starts can check them with no network. Raises ``OSError``."""
    files = {path: {"digest": str(digest), "bytes": size} for path, (digest, size) in manifest.files.items()}
    write_json(folder / _MANIFEST, {"repo": manifest.repo, "commit": manifest.commit, "files": files})
