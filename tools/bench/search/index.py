"""A library put into a database all at once: tables by COPY, then the indexes, each timed."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from runners.contract import Float32
from search.query.nearness import is_word
from search.store.database import Database, open_database
from search.store.documents import FORM, searched
from search.store.lexicon import sounds
from search.store.records import Line
from settings import Settings
from tools.harness.open_folder import open_folder

_INDEXES = ("ocr_document_words", "ocr_document_grams")


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture with the results of the models."""

    id: UUID
    owner: str
    name: str
    lines: Sequence[Line] | None
    """None: not read."""


@dataclass(slots=True)
class Built:
    """Seconds and bytes of building."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


@contextlib.asynccontextmanager
async def temporary_database() -> AsyncIterator[Database]:
    """Start a fresh embedded database, and remove it afterwards."""
    with open_folder() as folder:
        database = await open_database(Settings(search_folder=folder, database_url=None))
        try:
            yield database
        finally:
            await database.close()


def build(conninfo: str, entries: Iterable[Entry], vectors: Iterable[Float32], model: str) -> Built:
    """Fill the empty database at ``conninfo``. ``vectors``: blocks of rows, in the order of ``entries``."""
    built = Built()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(
            "SELECT string_agg(indexdef, ';') FROM pg_indexes WHERE indexname = ANY (%s)", (list(_INDEXES),)
        ).fetchone()
        definitions = [] if row is None else sorted(str(row[0]).split(";"))
        for name in _INDEXES:
            connection.execute(f"DROP INDEX immich_ai.{name}".encode())
        kept = []
        with built.timed("rows"):
            kept = _copy_rows(connection, entries)
            _copy_vectors(connection, kept, vectors, model)
        connection.execute("SET maintenance_work_mem = '1GB'")
        for definition in definitions:
            with built.timed("words" if definition.endswith("(words)") else "grams"):
                connection.execute(definition.encode())
        with built.timed("vectors"):
            size = connection.execute("SELECT vector_dims(vector) FROM immich_ai.embedding LIMIT 1").fetchone()
            connection.execute("SELECT immich_ai.index_embeddings(%s, %s)", (model, size[0] if size else 512))
            connection.execute("SELECT immich_ai.index_owners(%s)", (model,))
        connection.execute("VACUUM ANALYZE")
        for name, size_in_bytes in connection.execute(_SIZES).fetchall():
            built.bytes[name] = size_in_bytes
    return built


_SIZES = """
SELECT CASE WHEN relname LIKE 'embedding\\_%\\_512' THEN 'vectors' WHEN relname = 'ocr_document_words' THEN 'words'
ELSE 'grams' END,
       pg_relation_size(oid)
FROM pg_class
WHERE relnamespace = 'immich_ai'::regnamespace
  AND (relname LIKE 'embedding\\_%\\_512' OR relname IN ('ocr_document_words', 'ocr_document_grams'))
UNION ALL
SELECT 'database', pg_database_size(current_database())
"""


def _copy_rows(connection: psycopg.Connection, entries: Iterable[Entry]) -> list[UUID]:
    ids = []
    with contextlib.ExitStack() as stack:
        # COPY holds its connection: one table goes as it comes, what depends on it waits in memory.
        documents, lines = [], []
        words: set[str] = set()
        copy = stack.enter_context(
            connection.cursor().copy(
                "COPY immich_ai.asset (id, owner, uri, kind, size, modified, content_hash) FROM STDIN"
            )
        )
        for entry in entries:
            ids.append(entry.id)
            copy.write_row((entry.id, entry.owner, entry.name, "image", 1, "2026-01-01", b""))
            if entry.lines is not None:
                texts = [line.text for line in entry.lines]
                made = searched(texts, [line.box for line in entry.lines])
                words.update(made.words)
                documents.append(
                    (entry.id, "\n".join(texts), made.folded, list(made.pieces), " ".join(made.words), FORM)
                )
                lines += [
                    (entry.id, n, line.text, *line.box, line.box_score, line.text_score)
                    for n, line in enumerate(entry.lines, start=1)
                ]
    for table, rows in (("ocr_document (asset_id, text, folded, pieces, cut, form)", documents), ("ocr_line", lines)):
        with connection.cursor().copy(f"COPY immich_ai.{table} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
    listed = [(word, sounds(word)) for word in sorted(filter(is_word, words))]
    with connection.cursor().copy("COPY immich_ai.word (word, sounds) FROM STDIN") as copy:
        for row in listed:
            copy.write_row(row)
    return ids


def _copy_vectors(connection: psycopg.Connection, ids: Sequence[UUID], vectors: Iterable[Float32], model: str) -> None:
    """Copy vectors in PostgreSQL's binary format, and pgvector's.

    That is two int16 (size, 0) and big-endian floats (pgvector's vector_send).
    """
    name = model.encode()
    numbered = iter(ids)
    with connection.cursor().copy(
        "COPY immich_ai.embedding (asset_id, model, vector) FROM STDIN (FORMAT binary)"
    ) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
        for block in vectors:
            size = block.shape[1]
            for vector in block.astype(">f4"):
                head = struct.pack("!hi", 3, 16) + next(numbered).bytes + struct.pack("!i", len(name)) + name
                copy.write(head + struct.pack("!ihh", 4 + 4 * size, size, 0) + vector.tobytes())
        copy.write(struct.pack("!h", -1))
