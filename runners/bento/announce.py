"""The announcement of a service that listens: what answers each task, what is downloaded first, the URL for Immich."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from errors import ServiceError
from models.catalog import Catalog, ModelEntry, ModelKind
from models.listing import rows
from models.places import cache_folder
from runners.task import Task
from runners.tasks import tasks_by_name
from settings import Settings
from settings.addresses import DnsName
from settings.gateway import Servers

IMMICHS_DEFAULTS = {"clip": "ViT-B-32__openai", "facial-recognition": "buffalo_l", "ocr": "PP-OCRv5_mobile"}
"""Models that an Immich that nobody has set up asks for, by the key of its entries."""
_KINDS = {
    "folder": "in",
    "cache": "in",
    "store": "in BentoML's store,",
    "package": "comes with an installed package,",
    "project": "comes with this project,",
}
_NOWHERE = "192.0.2.1"
"""An address of documentation (RFC 5737), which nobody has."""


def announcement(config: Settings, catalog: Catalog, address: str) -> list[str]:
    """Return the lines to log when the service listens at ``address`` (``http://localhost:3003``)."""
    tasks: dict[str, Task[Any]] = {}
    for task in tasks_by_name(config.extra_tasks).values():
        tasks.setdefault(task.entry, task)
    answered = [_answered(task, config, catalog) for task in tasks.values()]
    return [*answered, f"Listening on {address}. {_for_immich(address, config)}"]


def _answered(task: Task[Any], config: Settings, catalog: Catalog) -> str:
    """Return which model answers ``task``, and where it is or comes from."""
    if task.route(config) == "upstream":
        return f"{task.entry}: answered by {_others(task.servers(config))} (IMMICH_API)."
    chosen = task.override(config)
    name = chosen or IMMICHS_DEFAULTS.get(task.entry)
    if name is None:
        return f"{task.entry}: answered here (EXTRA_TASKS)."
    try:
        entry = catalog.find(ModelKind(task.entry), name)
    except (ServiceError, ValueError) as error:  # a task of one's own has models of its own
        return f"{task.entry}: {error}"
    who = "every request is answered by" if chosen else "what Immich asks for; its default is"
    when = "is being fetched" if chosen else "is downloaded when it is first asked for"
    said = f"{task.entry}: {who} {entry.name}, {_source(entry, config, when)}."
    return f"{said} {entry.advice}" if chosen and entry.advice else said


def _others(servers: Servers) -> str:
    """Return how many other servers there are, or the DNS names that say so at any time."""
    dns = [str(one) for one in servers if isinstance(one, DnsName)]
    if dns:
        return f"the servers that {', '.join(dns)} name{'s' if len(dns) == 1 else ''}"
    return f"{len(servers)} other server{'s' if len(servers) > 1 else ''}"


def _source(entry: ModelEntry, config: Settings, when: str) -> str:
    (row,) = rows([entry], config)
    if row.places:
        return f"{_KINDS[row.places[0].kind]} {row.places[0].folder}"
    if config.offline:
        return f"which is not on this machine, and OFFLINE forbids to download it: {entry.without_download}"
    if not (entry.hub or entry.checkpoint or any(file.sources for file in entry.files)):
        return f"which is not on this machine: {entry.without_download}"
    size = f"{row.bytes / 1e6:.0f} MB" if row.bytes else "size unknown until then"
    return f"which {when} ({size}) to {cache_folder(entry, config)}"


def _for_immich(address: str, config: Settings) -> str:
    """Return the sentence that tells what to type into Immich, without the key that may be a part of it."""
    path = "/<URL_KEY>/" if config.url_key is not None else ""
    parts = urlsplit(address)
    host = parts.hostname or "localhost"
    if host == "localhost":  # what BentoML says for all addresses
        host = lan_address() or socket.gethostname()
    elif ipaddress.ip_address(host).is_loopback:
        return f"Immich's machine learning URL, from this machine alone: {address}{path}"
    shown = f"[{host}]" if ":" in host else host
    return f"Immich's machine learning URL: {parts.scheme}://{shown}:{parts.port}{path}"


def lan_address() -> str | None:
    """Return the address that this machine has towards others, or None where it is on no network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_NOWHERE, 9))  # for UDP: chooses an address of ours, and no more
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if ipaddress.ip_address(address).is_loopback else address
