"""Keeps BentoML from reporting usage over the network, also where it has read the variable before our code runs."""

from __future__ import annotations

import os

from bentoml._internal.utils.analytics import usage_stats

from runners.bento.internals import Borrowed, missing

USAGE_REPORTS = Borrowed(
    name="usage reports",
    gain="a plain `bentoml serve` sends nothing home: pytest tests/e2e/test_start.py -k nothing_is_sent_home",
    depends_on="bentoml/_internal/utils/analytics/usage_stats.py: do_not_track is an lru_cache over the environment",
    otherwise="BentoML reports usage unless BENTOML_DO_NOT_TRACK=True is set before the start, as `make serve` does",
    misfit=lambda: missing(usage_stats, "do_not_track.cache_clear"),
)


def send_no_usage_reports() -> None:
    """Set ``BENTOML_DO_NOT_TRACK`` unless it is set, and have BentoML read it again.

    ``bentoml serve`` reads the variable, and remembers it, before it imports the service.
    """
    if os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True") and USAGE_REPORTS.fits():
        usage_stats.do_not_track.cache_clear()
