"""The two servers of a comparison, started on free ports of the loopback interface with the same weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.bench.processes import ProcessTree
from tools.bench.target import Target
from tools.bench.weights import weights
from tools.harness.server import Server

KEY = "bench"
"""API_AUTH_KEY of ours, for the route that unloads."""
KEPT = Path("~/.cache/immich-bento-bench/served")
OURS = (sys.executable, "-m", "bentoml", "serve")
REFERENCE = (sys.executable, "-m", "tools.bench.reference")


def add_our_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark that starts this service."""
    parser.add_argument(
        "--models", type=Path, help="cache folder with clip/ViT-B-16 (default: the service's own, else random weights)"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a setting for ours, besides; may be repeated"
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark that starts this service and the reference."""
    add_our_options(parser)
    parser.add_argument(
        "--no-arena", action="store_true", help="run the peer without ONNX Runtime's arena, as Immich's container does"
    )


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings of --env. Raise ``ValueError`` if one is not NAME=VALUE."""
    wrong = [pair for pair in options.env if "=" not in pair]
    if wrong:
        raise ValueError(f"--env {wrong[0]}: write NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in options.env)


def our_server(
    options: argparse.Namespace,
    folder: Path,
    extra: Mapping[str, str] | None = None,
    *,
    cache: Path | None = None,
    cores: Sequence[int] = (),
) -> Server:
    """Return this service, not yet started: without search (the peer has none), with models that stay loaded.

    ``folder``: for its logs. ``cache``: for what it keeps, such as compiled models; None: in ``folder``. ``cores``: all
    that it may use.
    """
    kept = {"MACHINE_LEARNING_CACHE_FOLDER": str(cache)} if cache else {}
    return Server(folder, {**kept, **our_settings(options), **(extra or {})}, _pinned(OURS, cores))


def our_settings(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings of this service as it is measured, those of --env among them."""
    return {
        **weights(options.models).environment,
        "IMMICH_LOG_LEVEL": "warning",
        "MACHINE_LEARNING_MODEL_TTL": "0",
        "API_AUTH_KEY": KEY,
        "SEARCH_ENABLED": "false",
        **environment(options),
    }


def peer_server(options: argparse.Namespace, folder: Path, cores: Sequence[int] = ()) -> Server:
    """Return ``tools/bench/reference.py`` as a server, not yet started."""
    command = (*REFERENCE, *(["--no-arena"] if options.no_arena else []))
    return Server(folder, weights(options.models).environment, _pinned(command, cores))


@contextmanager
def ours(
    options: argparse.Namespace, extra: Mapping[str, str] | None = None, cores: Sequence[int] = ()
) -> Iterator[Target]:
    """Start this service, yield it when it is ready, and stop it.

    Models that it compiles are kept for the next run, as they are for a user's next start.
    """
    with (
        TemporaryDirectory(prefix="immich-bento-bench-") as folder,
        our_server(options, Path(folder), extra, cache=KEPT.expanduser(), cores=cores) as server,
    ):
        yield target("ours", server)


@contextmanager
def peer(options: argparse.Namespace, cores: Sequence[int] = ()) -> Iterator[Target]:
    """Start ``tools/bench/reference.py``, yield it when it is ready, and stop it."""
    with (
        TemporaryDirectory(prefix="immich-bento-bench-") as folder,
        peer_server(options, Path(folder), cores) as server,
    ):
        yield target("peer", server)


def target(name: str, server: Server) -> Target:
    """Return a started server as a target of loads."""
    assert server.process is not None
    return Target(name, server.url, ProcessTree(server.process.pid))


def _pinned(command: tuple[str, ...], cores: Sequence[int]) -> tuple[str, ...]:
    """Return ``command`` bound to ``cores`` from its start, so that it plans its threads for these."""
    if not cores:
        return command
    program = f"import os, sys; os.sched_setaffinity(0, {list(cores)}); os.execv(sys.argv[1], sys.argv[1:])"
    return (sys.executable, "-c", program, *command)
