"""A fake of Immich's HTTP API as a searcher sees it: users, partners, albums, and the two routes of its search bar.

Answers have the shapes, and refusals the texts, of a running Immich 3.1.0: tests/test_fake_immich.py holds them to what
was recorded. ``version`` 3.2 and newer takes alternatives (``filter.or``) besides, from what is known of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID, uuid4

from tests.loopback import LoopbackServer

Answer = tuple[int, bytes]


@dataclass
class Picture:
    """One asset. ``text``: what Immich's own OCR filter finds it by."""

    owner: UUID
    id: UUID = field(default_factory=uuid4)
    text: str = ""
    visibility: str = "timeline"
    favorite: bool = False
    trashed: bool = False
    taken: str = "2026-01-01T00:00:00.000Z"
    albums: Sequence[UUID] = ()
    people: Sequence[UUID] = ()

    def as_json(self, asker: UUID, with_exif: bool) -> dict[str, Any]:
        shown = {
            "id": str(self.id),
            "ownerId": str(self.owner),
            "type": "IMAGE",
            "originalFileName": f"{self.id}.jpg",
            "fileCreatedAt": self.taken,
            "isFavorite": self.favorite and asker == self.owner,
            "isTrashed": self.trashed,
            "visibility": self.visibility,
            "people": [],
        }
        return {**shown, "exifInfo": {"make": None, "fNumber": 1.8}} if with_exif else shown


@dataclass
class User:
    """A user with a session token, an API key, and partners who share with them."""

    name: str
    id: UUID = field(default_factory=uuid4)
    token: str = ""
    is_admin: bool = False
    partners: Sequence[tuple[User, bool]] = ()
    """Who shares with this user, and whether in the timeline."""
    elevated: bool = False
    """Whether the session has given the PIN: then a search that names no visibility finds locked pictures too."""

    def __post_init__(self) -> None:
        self.token = self.token or f"session-of-{self.name}"


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body) if self.body else None


class FakeSearchImmich(LoopbackServer):
    """A context manager. ``pictures``: in the order by which any query's meaning finds them."""

    def __init__(self, *users: User, version: tuple[int, int, int] = (3, 1, 0)) -> None:
        super().__init__(_handler(self))
        self.users = list(users)
        self.pictures: list[Picture] = []
        self.albums: dict[UUID, Sequence[User]] = {}
        self.keys: dict[str, tuple[User, Sequence[str]]] = {}
        """API keys with their user and permissions. Only `/api/api-keys/me` tells of the permissions; they are not held
        against any request.
        """
        self.version = version
        self.delay = 0.0
        self.override: Callable[[Seen], Answer | None] = lambda seen: None
        """Answers in place of Immich where it returns something."""
        self.seen: list[Seen] = []

    def searches(self, path: str) -> list[Seen]:
        return [one for one in self.seen if one.target.partition("?")[0] == f"/api/search/{path}"]

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        if self.delay:
            time.sleep(self.delay)
        overridden = self.override(seen)
        if overridden is not None:
            return overridden
        path = seen.target.partition("?")[0]
        if path == "/api/server/version":
            return _json(dict(zip(("major", "minor", "patch"), self.version, strict=True)))
        asker = self._asker(seen)
        if asker is None:
            return _json({"message": "Authentication required"}, 401)
        if path == "/api/users/me":
            return _json({"id": str(asker.id), "name": asker.name, "isAdmin": asker.is_admin})
        if path == "/api/partners":
            return _json([{"id": str(user.id), "inTimeline": shown} for user, shown in asker.partners])
        if path == "/api/api-keys/me":
            key = seen.headers.get("x-api-key", "")
            if key not in self.keys:
                return _json({"message": "Not authenticated with an API Key"}, 403)
            return _json({"id": str(asker.id), "name": "key", "permissions": list(self.keys[key][1])})
        if path.startswith("/api/albums/"):
            members = self.albums.get(UUID(path.rpartition("/")[2]), ())
            users = [{"user": {"id": str(user.id)}, "role": "viewer"} for user in members]
            return _json({"id": path.rpartition("/")[2], "albumUsers": users})
        if path in ("/api/search/smart", "/api/search/metadata") and seen.method == "POST":
            return self._search(asker, path, seen)
        return _json({"message": f"Cannot {seen.method} {path}"}, 404)

    def _asker(self, seen: Seen) -> User | None:
        cookies = dict(one.strip().partition("=")[::2] for one in seen.headers.get("cookie", "").split(";"))
        bearer = seen.headers.get("authorization", "").removeprefix("Bearer ")
        given = {cookies.get("immich_access_token"), bearer, seen.headers.get("x-api-key")}
        by_key = self.keys.get(seen.headers.get("x-api-key", ""))
        return by_key[0] if by_key else next((user for user in self.users if user.token in given), None)

    def _search(self, asker: User, path: str, seen: Seen) -> Answer:
        try:
            asked: Any = json.loads(seen.body) if seen.body else {}
            if not isinstance(asked, dict | list):
                raise ValueError("not an object")
        except (ValueError, RecursionError):
            return _json({"message": "Unexpected token"}, 400)
        problems = list(_problems(asked))
        if problems:
            return _json({"message": "Validation failed", "errors": problems}, 400)
        assert isinstance(asked, dict)
        if path.endswith("smart") and not asked.get("query") and not asked.get("queryAssetId"):
            return _json({"message": "Either `query` or `queryAssetId` must be set"}, 400)
        if asked.get("visibility") == "locked" and not asker.elevated:
            return _json({"message": "Elevated permission is required"}, 401)
        found = [one for one in self.pictures if self._is_found(one, asker, path, asked)]
        if path.endswith("metadata"):
            found.sort(key=lambda one: (one.taken, str(one.id)), reverse=True)
        page, size = int(asked.get("page", 1)), int(asked.get("size", 100 if path.endswith("smart") else 250))
        shown = found[(page - 1) * size : page * size]
        more = str(page + 1) if len(found) > page * size else None
        items = [one.as_json(asker.id, bool(asked.get("withExif"))) for one in shown]
        assets = {"total": len(items), "count": len(items), "items": items, "facets": [], "nextPage": more}
        return _json({"albums": {"total": 0, "count": 0, "items": [], "facets": []}, "assets": assets})

    def _is_found(self, one: Picture, asker: User, path: str, asked: Mapping[str, Any]) -> bool:
        inner = asked.get("filter", {}) if self.version >= (3, 2, 0) else {}
        owners = {asker.id, *(user.id for user, shown in asker.partners if shown)}
        albums = {UUID(one) for one in asked.get("albumIds") or inner.get("albumIds", {}).get("all", [])}
        people = {UUID(one) for one in asked.get("personIds") or inner.get("personIds", {}).get("all", [])}
        wanted = asked.get("visibility") or inner.get("visibility", {}).get("eq")
        favorite = asked.get("isFavorite", inner.get("isFavorite", {}).get("eq"))
        after = asked.get("takenAfter") or inner.get("takenAt", {}).get("gte", "")
        text = asked.get("ocr") if path.endswith("metadata") else None
        ids = [branch["id"]["eq"] for branch in inner.get("or", [])]
        return (
            (one.owner in owners or (bool(albums) and path.endswith("metadata")))
            and (one.visibility == wanted if wanted else one.visibility != "locked" or asker.elevated)
            and (one.visibility != "locked" or one.owner == asker.id)
            and people <= set(one.people)
            and (not one.trashed or bool(asked.get("withDeleted")))
            and (favorite is None or one.favorite == favorite)
            and one.taken >= after
            and albums <= set(one.albums)
            and (text is None or all(word in one.text for word in text.split()))
            and asked.get("id", str(one.id)) == str(one.id)
            and (not ids or str(one.id) in ids)
        )


def _problems(asked: Any) -> Sequence[dict[str, Any]]:
    """Return what Immich's validation says of a body, as far as tests send such."""
    if isinstance(asked, list):
        return [{"code": "invalid_type", "path": [], "message": "Invalid input: expected object, received array"}]
    rules: dict[str, Callable[[Any], bool]] = {
        "page": lambda value: _is_whole(value) and value >= 1,
        "size": lambda value: _is_whole(value) and 1 <= value <= 1000,
        "query": lambda value: isinstance(value, str),
        "ocr": lambda value: isinstance(value, str),
        "language": lambda value: isinstance(value, str),
        "withExif": lambda value: isinstance(value, bool),
        "isFavorite": lambda value: isinstance(value, bool),
        "visibility": lambda value: value in ("archive", "timeline", "hidden", "locked"),
        "albumIds": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "personIds": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "takenAfter": lambda value: isinstance(value, str) and value[:4].isdigit(),
    }
    return [
        {"code": "invalid_type", "path": [key], "message": "Invalid input"}
        for key, is_right in rules.items()
        if key in asked and not is_right(asked[key])
    ]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)


def _json(content: Any, status: int = 200) -> Answer:
    return status, json.dumps(content, separators=(",", ":")).encode()


def _content_type(content: bytes) -> str:
    if content.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "text/html" if content.startswith(b"<!DOCTYPE") else "application/json; charset=utf-8"


def _handler(immich: FakeSearchImmich) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one piece: else Nagle's algorithm waits 40 ms

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("transfer-encoding") == "chunked":
                body = self._chunks()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content = immich.answer(Seen(self.command, self.path, headers, body))
            self.send_response(status)
            self.send_header("content-type", _content_type(content))
            self.send_header("content-length", str(len(content)))
            self.send_header("x-immich-cid", "abc")
            self.end_headers()
            self.wfile.write(content)

        def _chunks(self) -> bytes:
            body = bytearray()
            while size := int(self.rfile.readline() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(body)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing on the console."""

    return Handler
