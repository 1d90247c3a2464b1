"""``python -m search index --ray`` on a real Ray cluster of two nodes on this machine: the rows of an index by the
service, and a node that is killed in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from tests.e2e.indexed import Place, place, write_noise
from tests.search.indexing.files import video
from tools.harness.rendered import Look, jpeg, page

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="there is no ray: make test-ray installs it")

LINES = ("增值税电子发票 No. 42", "雪地里的小狗", "RE16 零件清单", "会议室 A-102", "Hello world 你好", "人民广场地铁站")
PICTURES = 300


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Yield a cluster of two nodes with a CPU each; the second is ``cluster.worker_nodes`` alone."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as one:
        yield one


def index(here: Place, folder: Path, cluster: Any, *arguments: str) -> tuple[str, ...]:
    """Return the arguments of the command that indexes ``folder`` on ``cluster``."""
    return ("index", str(folder), "--ray", cluster.address, "--ray-cpus", "1", "--no-progress", *arguments)


def test_the_rows_are_those_of_an_index_by_the_service(here: Place, cluster: Any) -> None:
    folder = here.folder / "library"
    (folder / "sub").mkdir(parents=True)
    for number, line in enumerate(LINES):
        picture = jpeg(page([line], size=(720, 240), look=Look(font_size=48), margin=60))
        (folder / "sub" / f"text{number}.jpg").write_bytes(picture)
    Image.new("RGB", (200, 200), (120, 150, 90)).save(folder / "plain.png")
    (folder / "broken.jpg").write_bytes((folder / "sub/text0.jpg").read_bytes()[:4000])
    video(folder / "film.mp4", size=(320, 240))
    with here.server():  # which keeps the database up
        plain = here.run("index", str(folder), "--owner", "plain")
        on_ray = here.run(*index(here, folder, cluster, "--owner", "ray"))
        assert "8 computed, 1 failed" in plain
        assert "8 computed, 1 failed" in on_ray
        expected, found = rows(here, "plain"), rows(here, "ray")
        again = here.run(*index(here, folder, cluster, "--owner", "ray"))
    assert [Path(row["uri"]).name for row in found if row["vector"] is None] == ["broken.jpg"]
    assert sum(row["lines"] is not None for row in found) == len(LINES)
    for one, other in zip(expected, found, strict=True):
        vectors = [row.pop("vector") for row in (one, other)]
        if vectors[0] is not None:
            first, second = (np.array(orjson.loads(vector)) for vector in vectors)
            assert first @ second > 0.9999, one["uri"]
        assert one == other
    assert "0 computed, 8 unchanged, 1 failed before" in again


def rows(here: Place, owner: str) -> list[dict[str, Any]]:
    """Return all that is stored of the pictures of ``owner``, but for ids and times of writing."""
    corners = ", ".join(f"round({axis}{number}::numeric, 4)" for number in (1, 2, 3, 4) for axis in "xy")
    return here.rows(
        f"""SELECT a.uri, a.kind, a.size, a.modified, a.content_hash, e.model, e.vector::text AS vector,
                   d.text, d.words::text AS words, d.model AS reader, l.lines, f.task, f.code
            FROM immich_ai.asset a
            LEFT JOIN immich_ai.embedding e ON e.asset_id = a.id
            LEFT JOIN immich_ai.ocr_document d ON d.asset_id = a.id
            LEFT JOIN immich_ai.failure f ON f.owner = a.owner AND f.uri = a.uri
            LEFT JOIN LATERAL (
                SELECT json_agg(json_build_array(o.n, o.text, {corners}) ORDER BY o.n) AS lines
                FROM immich_ai.ocr_line o WHERE o.asset_id = a.id
            ) l ON true
            WHERE a.owner = '{owner}' ORDER BY a.uri"""
    )


def test_a_node_that_is_killed_in_the_middle_loses_nothing(here: Place, cluster: Any) -> None:
    folder = here.folder / "pictures"
    write_noise(folder, PICTURES)
    here.run("migrate")
    with here.server():  # which keeps the database up, so that rows can be looked at meanwhile
        command = here.command(*index(here, folder, cluster, "--tasks", "clip"))
        here.wait_for(PICTURES // 3, command)
        [second] = cluster.worker_nodes
        cluster.remove_node(second, allow_graceful=False)
        at = here.stored()
        said, _ = command.communicate(timeout=300)
        assert command.returncode == 0, said
        assert at < PICTURES
        assert f"{PICTURES} files" in said
        assert "failed" not in said
        [counts] = here.rows("SELECT count(*) AS vectors, count(DISTINCT asset_id) AS assets FROM immich_ai.embedding")
        assert counts == {"vectors": PICTURES, "assets": PICTURES}
        assert here.rows("SELECT count(*) AS n FROM immich_ai.failure") == [{"n": 0}]


def test_what_cannot_be_joined_and_what_has_no_room_is_told(here: Place, cluster: Any) -> None:
    folder = here.folder / "few"
    folder.mkdir()
    Image.new("RGB", (60, 60)).save(folder / "one.png")

    def refused(*arguments: str) -> str:
        command = here.command("index", str(folder), "--no-progress", *arguments)
        said, _ = command.communicate(timeout=300)
        assert command.returncode == 1, said
        return said

    assert "No node of the Ray cluster has the 16 CPUs" in refused("--ray", cluster.address, "--ray-cpus", "16")
    assert "No Ray cluster can be joined at 127.0.0.1:1: [Errno 111]" in refused("--ray", "127.0.0.1:1")
