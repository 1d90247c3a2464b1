"""An Immich of two users and an administrator, and the database behind it, as the page's tests need it."""

from __future__ import annotations

import json
from uuid import UUID

from search.store.database import Database
from tests.fake_immich_search import Answer, FakeSearchImmich, Seen, User
from tests.search.indexing.redoing import picture, rows, upload
from tests.web.pages import Pages

PREVIEW = picture()
FACE = {
    "imageWidth": 200,
    "imageHeight": 100,
    "boundingBoxX1": 20,
    "boundingBoxY1": 10,
    "boundingBoxX2": 100,
    "boundingBoxY2": 60,
    "person": {"name": "<b>Ann</b>"},
}
_REFUSED = 400, b'{"message":"Not found or no asset.read access"}'


class Library:
    """An Immich of two users and an administrator, and the database behind it."""

    def __init__(self, database: Database, immich: FakeSearchImmich) -> None:
        self.database, self.immich = database, immich
        self.ann, self.bob, self.admin = User("ann"), User("bob"), User("admin", is_admin=True)
        immich.users += [self.ann, self.bob, self.admin]
        immich.override = self._answer
        self.owners: dict[UUID, User] = {}
        self.shared: set[tuple[UUID, UUID]] = set()
        """Asset and user of what is shared in an album."""
        self.archived: set[UUID] = set()
        self.lines: dict[UUID, list[dict[str, object]]] = {}
        """Lines of text as Immich tells of them."""

    def add(self, user: User, *texts: str) -> UUID:
        asset = upload(self.database, *texts)
        rows(self.database, 'update public.asset set "ownerId" = %s where id = %s', user.id, asset)
        lines = "\n".join(texts)
        values = (asset, lines, lines, " ".join(texts))
        rows(
            self.database,
            "insert into immich_ai.ocr_document (asset_id, text, folded, cut) values (%s, %s, %s, %s)",
            *values,
        )
        self.owners[asset] = user
        return asset

    def archive(self, asset: UUID) -> None:
        rows(self.database, "update public.asset set visibility = 'archive' where id = %s", asset)
        self.archived.add(asset)

    def pages(self, **overrides: object) -> Pages:
        return Pages(self.database, self.immich, **overrides)

    def _answer(self, seen: Seen) -> Answer | None:
        path, _, query = seen.target.partition("?")
        if path == "/api/server/config":
            return 200, b'{"externalDomain":"https://photos.example/"}'
        asker = self.immich._asker(seen)
        if asker is None or not path.startswith(("/api/faces", "/api/assets/")):
            return None
        if path == "/api/assets/jobs":
            (name,) = seen.content["assetIds"]
            return (204, b"") if self.owners.get(UUID(name)) is asker else _REFUSED
        asset = UUID(query.removeprefix("id=") if path == "/api/faces" else path.split("/")[3])
        partners = [partner.id for partner, _ in asker.partners]
        owner = self.owners.get(asset)
        by_partner = owner is not None and owner.id in partners and asset not in self.archived
        if not (owner is asker or by_partner or (asset, asker.id) in self.shared):
            return _REFUSED
        if path == "/api/faces":
            return 200, json.dumps([FACE]).encode()
        if path.endswith("/ocr"):
            return 200, json.dumps(self.lines.get(asset, [])).encode()
        return 200, PREVIEW if path.endswith("/thumbnail") else b"{}"
