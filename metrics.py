"""The figures of ``/metrics`` besides BentoML's own. A leaf: anything may import it.

BentoML sets ``PROMETHEUS_MULTIPROC_DIR`` before its processes start, so that one scrape sums up all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("immich_bento_requests", "Requests answered, by what was asked and HTTP status.", ["task", "status"])
LATENCY = Histogram(
    "immich_bento_request_seconds",
    "Seconds from the first byte of a request to its answer.",
    ["task"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
BATCH_SIZE = Histogram(
    "immich_bento_batch_size",
    "Pictures or texts per call of a model.",
    ["runner"],
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
)
QUEUE_BYTES = Gauge("immich_bento_queue_bytes", "Bytes of request bodies in memory.", multiprocess_mode="livesum")
QUEUE_WAITING = Gauge(
    "immich_bento_queue_waiting", "Requests that wait, unread, for room in the queue.", multiprocess_mode="livesum"
)
MODELS_LOADED = Gauge("immich_bento_models_loaded", "Models in memory.", ["runner"], multiprocess_mode="livesum")
MODEL_READY = Gauge(
    "immich_bento_model_ready",
    "1 while the files of a model that was named or asked for are here, 0 while they are fetched or cannot be had.",
    ["task", "model"],
    multiprocess_mode="livemax",
)
MODEL_FETCH_PERCENT = Gauge(
    "immich_bento_model_fetch_percent",
    "How much of a model's download, then of its conversion, is done; 100 once it is here.",
    ["task", "model"],
    multiprocess_mode="livemax",
)
UPSTREAM_UP = Gauge(
    "immich_bento_upstream_up",
    "1 while an upstream is asked, 0 while it is down, or once its DNS name has it no longer.",
    ["upstream"],
    multiprocess_mode="livemin",
)
UPSTREAM_REQUESTS = Counter(
    "immich_bento_upstream_requests",
    "Requests to upstreams: answered, refused (the request's own fault), failed (the upstream's), late, lost (the "
    "connection).",
    ["upstream", "outcome"],
)
UPSTREAM_IN_FLIGHT = Gauge(
    "immich_bento_upstream_in_flight",
    "Requests that an upstream works on for this service, by the tasks that it is asked for.",
    ["upstream", "task"],
    multiprocess_mode="livesum",
)
UPSTREAM_WAITING = Gauge(
    "immich_bento_upstream_waiting",
    "Requests that wait until an upstream has room, by the tasks that it is asked for.",
    ["task"],
    multiprocess_mode="livesum",
)
SEARCH_BAR = Counter(
    "immich_bento_search_bar",
    "Requests of Immich's search bar: hybrid, text; passed (Immich's own answer); failed, late (Immich's own, instead "
    "of ours).",
    ["done"],
)
SEARCH_SYNCED = Gauge(
    "immich_bento_search_synced_timestamp_seconds",
    "When the searched texts were last brought up to date with Immich's.",
    multiprocess_mode="livemax",
)
SEARCH_SYNC_FAILURES = Counter(
    "immich_bento_search_sync_failures", "Rounds of bringing the searched texts up to date that failed."
)
OCR_LEFT_OUT = Counter(
    "immich_bento_ocr_regions_left_out", "Regions of text that were not read, in pictures with more than OCR_MAX_BOXES."
)
OCR_THINNED = Counter("immich_bento_ocr_pictures_thinned", "Pictures with more regions of text than OCR_MAX_BOXES.")

_left_out = [0, 0]
"""Pictures and regions of ``left_out``."""


def tell_left_out(regions: int) -> None:
    """Count a picture of which ``regions`` regions of text were not read."""
    OCR_THINNED.inc()
    OCR_LEFT_OUT.inc(regions)
    _left_out[0] += 1
    _left_out[1] += regions


def left_out() -> tuple[int, int]:
    """Return how many pictures this process told of with ``tell_left_out``, and regions, since it started."""
    return _left_out[0], _left_out[1]


def tell_model(task: str, model: str, state: str, percent: int | None) -> None:
    """Note whether a model's files are here. ``state``: as of ``runners.contract.ModelState``. ``percent``: 0 to
    100.
    """
    here = state == "here"
    MODEL_READY.labels(task, model).set(1 if here else 0)
    MODEL_FETCH_PERCENT.labels(task, model).set(100 if here else percent or 0)


def forget_dead_processes() -> None:
    """Drop the live gauges of processes that were killed: nobody else does, and their models would count for ever."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)
