"""The index of the standalone source, as it is written: files, and what the models made of them. An asset is written in
one transaction, never half.

Every function takes a connection as ``Database.connection`` gives it, with rows as mappings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeAlias
from uuid import UUID

from psycopg import AsyncConnection

from errors import ErrorCode, ServiceError
from search.store.documents import put_document
from search.store.lexicon import add_words
from search.store.records import Asset, Failed, File, Known, Problem, Text, Vector

Connection: TypeAlias = "AsyncConnection[dict[str, Any]]"


async def put_asset(
    connection: Connection,
    file: File,
    *,
    vector: Vector | None = None,
    text: Text | None = None,
    problems: Sequence[Problem] = (),
) -> UUID:
    """Write a file and what came of it; returns its id, which stays the same for the same owner and uri.

    If the content is another than before, everything that was made of the old one goes. Where a result is None, that
    task is left as it is.
    """
    async with connection.transaction():
        before = await (await connection.execute(_CONTENT_LOCKED, _values(file))).fetchone()
        (row,) = await (await connection.execute(_UPSERT, _values(file))).fetchall()
        asset_id: UUID = row["id"]
        if before is not None and before["content_hash"] != file.content_hash:
            await _forget_results(connection, asset_id, file)
        await _put(connection, asset_id, file, vector, text, problems)
    return asset_id


async def get_asset(connection: Connection, asset_id: UUID, *, lock: bool = False) -> Asset:
    """Return the asset of this id. ``lock``: nobody else changes it until the transaction ends.

    Raises ``ServiceError`` UNKNOWN_ASSET.
    """
    rows = await connection.execute(_ASSET_LOCKED if lock else _ASSET, (asset_id,))
    row = await rows.fetchone()
    if row is None:
        raise ServiceError(ErrorCode.UNKNOWN_ASSET, f"The index has no asset {asset_id}.")
    return Asset(**_file(row), id=row["id"])


async def known(connection: Connection, owner: str, uris: Sequence[str], models: Mapping[str, str]) -> dict[str, Known]:
    """Return what the index knows of ``uris``, by uri.

    ``models``: by task (``clip``, ``ocr``), whose results count as done.
    """
    values = {"owner": owner, "uris": list(uris), "clip": models.get("clip"), "ocr": models.get("ocr")}
    rows = await connection.execute(_KNOWN, values)
    found = {}
    async for row in rows:
        done = frozenset(task for task in ("clip", "ocr") if row[f"has_{task}"])
        found[row["uri"]] = Known(**_file(row), id=row["id"], done=done, failed=frozenset(row["failed"]))
    return found


async def same_content(connection: Connection, owner: str, content_hash: bytes) -> list[Asset]:
    """Return the owner's assets with this content, at most ten of them."""
    rows = await connection.execute(_SAME_CONTENT, (owner, content_hash))
    return [Asset(**_file(row), id=row["id"]) async for row in rows]


async def touch(connection: Connection, asset_id: UUID, *, size: int, modified: datetime) -> None:
    """Note that a file has another date and the same content."""
    await connection.execute(
        "UPDATE immich_ai.asset SET size = %s, modified = %s WHERE id = %s", (size, modified, asset_id)
    )


async def move(connection: Connection, asset: Asset, *, uri: str, modified: datetime) -> bool:
    """Note that a file lies at ``uri`` now, with all that was made of it. False, and nothing done, if something else is
    known there.
    """
    async with connection.transaction():
        moved = await connection.execute(
            _MOVE, {"id": asset.id, "old": asset.uri, "uri": uri, "modified": modified, "owner": asset.owner}
        )
        if moved.rowcount:
            await connection.execute(_DROP_FAILURES, {"owner": asset.owner, "uri": uri})
            await connection.execute(_MOVE_FAILURES, {"owner": asset.owner, "old": asset.uri, "uri": uri})
    return bool(moved.rowcount)


async def put_problem(
    connection: Connection, owner: str, uri: str | None, problem: Problem, asset_id: UUID | None = None
) -> None:
    """Remember a problem; one more attempt if it is known. ``uri``: None for an asset of Immich."""
    values = {
        "owner": owner,
        "uri": uri,
        "asset_id": asset_id,
        "task": problem.task,
        "code": problem.code,
        "message": clean(problem.message),
    }
    await connection.execute(_PUT_FAILURE, values)


async def failures(connection: Connection, *, owner: str | None = None, limit: int | None = None) -> list[Failed]:
    """Return problems as they are remembered, the latest first."""
    rows = await connection.execute(_FAILURES, {"owner": owner, "limit": limit})
    return [Failed(**row) async for row in rows]


async def delete_assets(connection: Connection, ids: Collection[UUID]) -> int:
    """Delete assets with everything of theirs; returns how many there were."""
    async with connection.transaction():
        gone = await connection.execute(_DELETE, (list(ids),))
        return gone.rowcount


async def uris_after(connection: Connection, owner: str, root: str, after: str, limit: int) -> list[tuple[str, UUID]]:
    """Return the next ``limit`` uris (and ids) of ``root`` itself and what lies below it, in the database's order.

    ``after``: the last uri before them, or '' to begin.
    """
    rows = await connection.execute(_URIS, {"owner": owner, "root": root, "after": after, "limit": limit})
    return [(row["uri"], row["id"]) async for row in rows]


async def failed_uris_after(connection: Connection, owner: str, root: str, after: str, limit: int) -> list[str]:
    """Return uris as ``uris_after`` does, of the failures of files that never became assets."""
    rows = await connection.execute(_FAILED_URIS, {"owner": owner, "root": root, "after": after, "limit": limit})
    return [row["uri"] async for row in rows]


async def drop_failures(connection: Connection, owner: str, uris: Sequence[str]) -> None:
    """Forget that these files failed."""
    await connection.execute(_DROP_FAILURES_OF, {"owner": owner, "uris": list(uris)})


def clean(text: str) -> str:
    """Return ``text`` without what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _values(file: File) -> Mapping[str, Any]:
    return {
        "owner": file.owner,
        "uri": file.uri,
        "kind": file.kind,
        "size": file.size,
        "modified": file.modified,
        "hash": file.content_hash,
    }


def _file(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("owner", "uri", "kind", "size", "modified")} | {
        "content_hash": bytes(row["content_hash"])
    }


async def _forget_results(connection: Connection, asset_id: UUID, file: File) -> None:
    for table in ("embedding", "ocr_line", "ocr_document"):
        await connection.execute(f"DELETE FROM immich_ai.{table} WHERE asset_id = %s", (asset_id,))  # noqa: S608 - three names of ours
    await connection.execute(_DROP_FAILURES, {"owner": file.owner, "uri": file.uri})


async def _put(
    connection: Connection,
    asset_id: UUID,
    file: File,
    vector: Vector | None,
    text: Text | None,
    problems: Sequence[Problem],
) -> None:
    done = [task for task, result in (("clip", vector), ("ocr", text)) if result is not None]
    if done:  # whatever has a result was read
        await connection.execute(_CLEAR_FAILURES, {"owner": file.owner, "uri": file.uri, "tasks": [*done, "read"]})
    if vector is not None:
        await connection.execute(
            "DELETE FROM immich_ai.embedding WHERE asset_id = %s AND model <> %s", (asset_id, vector.model)
        )
        await connection.execute(_PUT_VECTOR, (asset_id, vector.model, vector.numbers))
    if text is not None:
        await _put_text(connection, asset_id, text)
    for problem in problems:
        await put_problem(connection, file.owner, file.uri, problem, asset_id)


async def _put_text(connection: Connection, asset_id: UUID, text: Text) -> None:
    await connection.execute("DELETE FROM immich_ai.ocr_line WHERE asset_id = %s", (asset_id,))
    lines = [
        (asset_id, n, clean(line.text), *line.box, line.box_score, line.text_score)
        for n, line in enumerate(text.lines, start=1)
    ]
    if lines:
        async with connection.cursor() as cursor:
            await cursor.executemany(_PUT_LINE, lines)
    texts, boxes = [clean(line.text) for line in text.lines], [line.box for line in text.lines]
    now = datetime.now(timezone.utc)
    made = await put_document(connection, asset_id, texts, boxes=boxes, model=text.model, read_at=now)
    await add_words(connection, made.words)


_FILE = "id, owner, uri, kind, size, modified, content_hash"
_SUBJECT = r"%(owner)s || E'\n' || %(uri)s"
"""The key of a file's failures: ``immich_ai.failure.subject``."""

_CONTENT_LOCKED = "SELECT content_hash FROM immich_ai.asset WHERE owner = %(owner)s AND uri = %(uri)s FOR UPDATE"
_UPSERT = """
INSERT INTO immich_ai.asset (owner, uri, kind, size, modified, content_hash)
VALUES (%(owner)s, %(uri)s, %(kind)s, %(size)s, %(modified)s, %(hash)s)
ON CONFLICT (owner, uri) DO UPDATE
    SET kind = excluded.kind, size = excluded.size, modified = excluded.modified, content_hash = excluded.content_hash
RETURNING id
"""
_ASSET = f"SELECT {_FILE} FROM immich_ai.asset WHERE id = %s"  # noqa: S608 - column names of ours
_ASSET_LOCKED = _ASSET + " FOR UPDATE"
_SAME_CONTENT = f"SELECT {_FILE} FROM immich_ai.asset WHERE owner = %s AND content_hash = %s LIMIT 10"  # noqa: S608
_KNOWN = f"""
SELECT {_FILE},
       EXISTS (SELECT FROM immich_ai.embedding e WHERE e.asset_id = a.id AND e.model = %(clip)s) AS has_clip,
       EXISTS (SELECT FROM immich_ai.ocr_document d WHERE d.asset_id = a.id AND d.model = %(ocr)s) AS has_ocr,
       ARRAY(SELECT f.task FROM immich_ai.failure f WHERE f.subject = a.owner || E'\\n' || a.uri) AS failed
FROM immich_ai.asset a WHERE a.owner = %(owner)s AND a.uri = ANY(%(uris)s)
"""  # noqa: S608
_MOVE = """
UPDATE immich_ai.asset SET uri = %(uri)s, modified = %(modified)s
WHERE id = %(id)s AND uri = %(old)s
  AND NOT EXISTS (SELECT FROM immich_ai.asset WHERE owner = %(owner)s AND uri = %(uri)s)
"""
_MOVE_FAILURES = r"UPDATE immich_ai.failure SET uri = %(uri)s WHERE subject = %(owner)s || E'\n' || %(old)s"
_DROP_FAILURES = f"DELETE FROM immich_ai.failure WHERE subject = {_SUBJECT}"  # noqa: S608
_CLEAR_FAILURES = f"DELETE FROM immich_ai.failure WHERE subject = {_SUBJECT} AND task = ANY(%(tasks)s)"  # noqa: S608
_DROP_FAILURES_OF = r"""
DELETE FROM immich_ai.failure WHERE subject IN (SELECT %(owner)s || E'\n' || uri FROM unnest(%(uris)s::text[]) AS uri)
"""
_PUT_FAILURE = """
INSERT INTO immich_ai.failure AS f (owner, uri, asset_id, task, code, message)
VALUES (%(owner)s, %(uri)s, %(asset_id)s, %(task)s, %(code)s, %(message)s)
ON CONFLICT (subject, task) DO UPDATE
    SET asset_id = excluded.asset_id, code = excluded.code, message = excluded.message, attempts = f.attempts + 1,
    failed_at = now()
"""
_FAILURES = """
SELECT owner, uri, asset_id, task, code, message, attempts, failed_at FROM immich_ai.failure
WHERE %(owner)s::text IS NULL OR owner = %(owner)s ORDER BY failed_at DESC, subject, task LIMIT %(limit)s
"""
_DELETE = r"""
WITH gone AS (DELETE FROM immich_ai.asset WHERE id = ANY(%s) RETURNING id, owner, uri),
     documents AS (DELETE FROM immich_ai.ocr_document WHERE asset_id IN (SELECT id FROM gone)),
     failures AS (DELETE FROM immich_ai.failure WHERE subject IN (SELECT owner || E'\n' || uri FROM gone))
SELECT id FROM gone
"""
_URIS = """
SELECT uri, id FROM immich_ai.asset
WHERE owner = %(owner)s AND uri > %(after)s AND (uri = %(root)s OR starts_with(uri, rtrim(%(root)s, '/') || '/'))
ORDER BY uri LIMIT %(limit)s
"""
_FAILED_URIS = """
SELECT DISTINCT uri FROM immich_ai.failure
WHERE owner = %(owner)s AND asset_id IS NULL AND uri > %(after)s AND (uri = %(root)s OR starts_with(uri,
rtrim(%(root)s, '/') || '/'))
ORDER BY uri LIMIT %(limit)s
"""
_PUT_VECTOR = """
INSERT INTO immich_ai.embedding (asset_id, model, vector) VALUES (%s, %s, %s)
ON CONFLICT (asset_id, model) DO UPDATE SET vector = excluded.vector
"""
_PUT_LINE = """
INSERT INTO immich_ai.ocr_line (asset_id, n, text, x1, y1, x2, y2, x3, y3, x4, y4, box_score, text_score)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
