"""An Immich as its database shows it: uploads, readings, trash, deletions, a changed model, as Immich's own server
writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import psycopg

OWNER = UUID(int=1)
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Library:
    """The library in the database at ``conninfo``. Its clock goes one second further with each reading."""

    def __init__(self, conninfo: str, assets: str = "asset") -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self._assets = assets
        self._now = START

    def close(self) -> None:
        self.connection.close()

    def upload(self, *, owner: UUID = OWNER, name: str = "IMG_0001.jpg", visibility: str = "timeline") -> UUID:
        asset = uuid4()
        self.connection.execute(
            f'INSERT INTO {self._assets} (id, "ownerId", "originalFileName", "localDateTime", visibility) VALUES '
            "(%s, %s, %s, %s, %s)",
            (asset, owner, name, START, visibility),
        )
        return asset

    def read(self, asset: UUID, lines: Sequence[str | tuple[str, float, float]]) -> None:
        """Write Immich's OCR of an asset: lines as texts, one below the other, or as (text, left, top). Immich writes
        the lines, then "ocrAt".
        """
        self.connection.execute('DELETE FROM asset_ocr WHERE "assetId" = %s', (asset,))
        for n, line in enumerate(lines):
            text, x, y = line if isinstance(line, tuple) else (line, 0.1, 0.1 * n)
            self.connection.execute(
                'INSERT INTO asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text)'
                " VALUES (%(a)s, %(x)s, %(y)s, %(x)s + 0.3, %(y)s, %(x)s + 0.3, %(y)s + 0.05, %(x)s, %(y)s + 0.05, "
                "0.9, 0.95, %(text)s)",
                {"a": asset, "x": x, "y": y, "text": text},
            )
        self._now += timedelta(seconds=1)
        self.connection.execute(
            'INSERT INTO asset_job_status ("assetId", "ocrAt") VALUES (%s, %s)'
            ' ON CONFLICT ("assetId") DO UPDATE SET "ocrAt" = excluded."ocrAt"',
            (asset, self._now),
        )

    def hide(self, asset: UUID, text: str) -> None:
        """Hide the lines with this text, as the job that makes an edited picture does, which changes the asset last."""
        self.connection.execute(
            'UPDATE asset_ocr SET "isVisible" = false WHERE "assetId" = %s AND text = %s', (asset, text)
        )
        self.set(asset, "visibility = visibility")

    def read_by_the_fork(self, asset: UUID, texts: Sequence[str], json: str | None = None) -> None:
        self.connection.execute(
            "INSERT INTO ocr_info VALUES (%s, %s, coalesce(%s::jsonb, jsonb_build_object('texts', %s::text[], "
            "'scores', %s::text[])))"
            ' ON CONFLICT ("assetId") DO UPDATE SET text = excluded.text, "ocrJson" = excluded."ocrJson"',
            (asset, " ".join(texts), json, list(texts), ["0.98" for _ in texts]),
        )

    def embed(self, asset: UUID, vector: Sequence[float]) -> None:
        self.connection.execute(
            'INSERT INTO smart_search VALUES (%s, %s::vector) ON CONFLICT ("assetId") DO UPDATE SET embedding = '
            "excluded.embedding",
            (asset, str(list(vector))),
        )

    def change_model(self, size: int) -> None:
        """Empty the table and change the column, as Immich does when its CLIP model gets another size."""
        self.connection.execute("TRUNCATE smart_search")
        self.connection.execute("DROP INDEX IF EXISTS clip_index")
        self.connection.execute(f"ALTER TABLE smart_search ALTER COLUMN embedding SET DATA TYPE vector({size})")
        self.connection.execute("CREATE INDEX clip_index ON smart_search USING hnsw (embedding vector_cosine_ops)")

    def set(self, asset: UUID, assignment: str) -> None:
        """Change one asset: ``"deletedAt" = now()``."""
        self.connection.execute(f"UPDATE {self._assets} SET {assignment} WHERE id = %s", (asset,))

    def delete(self, asset: UUID) -> None:
        self.connection.execute(f"DELETE FROM {self._assets} WHERE id = %s", (asset,))
