"""Pictures whose rows Immich has lost, found and done again."""

from __future__ import annotations

import asyncio

from search.immich.lost_assets import count_lost_texts, lost_assets
from search.immich.sync import sync
from search.indexing.redo import RedoTask
from search.indexing.reprocess import reprocess
from search.store.database import Database
from tests.fake_immich import FakeImmich
from tests.search.immich.library import Library
from tests.search.indexing.redoing import FakeRecompute, models, picture, run, settings


def count(database: Database) -> int | None:
    return run(database, lambda connection: count_lost_texts(connection, database.source.value))


def test_what_immich_lost_is_found_and_read_once(immich_database: Database) -> None:
    library = Library(immich_database.conninfo)
    kept, lost, waiting = library.upload(), library.upload(), library.upload()
    library.read(kept, ["发票"])
    library.read(lost, ["收据"])
    asyncio.run(sync(immich_database))
    assert (asyncio.run(lost_assets(immich_database, ["ocr"])), count(immich_database)) == ([], 0)
    library.connection.execute('DELETE FROM asset_ocr WHERE "assetId" = %s', (lost,))
    assert (asyncio.run(lost_assets(immich_database, ["ocr"])), count(immich_database)) == ([lost], 1)
    with FakeImmich() as immich:
        immich.previews[str(lost)] = picture()
        config = settings(immich_url=immich.url, immich_api_key=immich.key)
        known = models(immich_database, config)
        asyncio.run(reprocess(immich_database, lost, [RedoTask.OCR], FakeRecompute(), known, config))
    assert (asyncio.run(lost_assets(immich_database, ["ocr"])), count(immich_database)) == ([], 0)
    assert waiting not in asyncio.run(lost_assets(immich_database, ["ocr", "faces"]))
    library.close()


def test_lost_faces_are_those_of_pictures_that_immich_believes_looked_at(immich_database: Database) -> None:
    library = Library(immich_database.conninfo)
    kept, lost, trash = (library.upload() for _ in range(3))
    for asset in (kept, lost, trash):
        library.connection.execute(
            'INSERT INTO asset_job_status ("assetId", "facesRecognizedAt") VALUES (%s, now())', (asset,)
        )
    library.connection.execute('INSERT INTO asset_face ("assetId") VALUES (%s)', (kept,))
    library.set(trash, '"deletedAt" = now()')
    assert asyncio.run(lost_assets(immich_database, ["faces"])) == [lost]
    assert asyncio.run(lost_assets(immich_database, ["clip"])) == []
    library.close()


def test_our_own_index_and_the_fork_lose_nothing_in_this_way(database: Database, fork_database: Database) -> None:
    for one in (database, fork_database):
        assert asyncio.run(lost_assets(one, ["ocr", "faces"])) == []
        assert count(one) is None
