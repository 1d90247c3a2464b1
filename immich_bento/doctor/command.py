"""``immich-bento doctor``: check a set-up and say what to do.

Exit codes: 0 nothing is wrong (there may be warnings); 1 something is; 2 the command line is wrong. The report goes to
standard output, and holds no secret.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_settings import SettingsError

from immich_bento.doctor.finding import Finding, Level, wrong
from models.catalog import Catalog, CatalogError, load_catalog
from settings import Settings
from settings.problems import what_is_wrong

MARKS = {Level.GOOD: "  ok  ", Level.SKIPPED: "  --  ", Level.WARNING: " warn ", Level.WRONG: "WRONG "}


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of ``program``'s command line."""
    parser = argparse.ArgumentParser(
        prog=program, description="Check this set-up and say what to do. More: docs/operations.md."
    )
    parser.add_argument("--json", action="store_true", help="one JSON list")
    parser.add_argument(
        "--url", default=None, help="the service (default: this machine's, http://127.0.0.1:<HTTP_PORT>)"
    )
    parser.add_argument(
        "--proxy",
        default=None,
        metavar="URL",
        help="the proxy before Immich, as browsers reach it: are its locations there?",
    )
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for the answer to one task (default: 60)"
    )
    return parser


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m immich_bento doctor") -> int:
    """Run all checks and print what they find; return the exit code."""
    options = parser(program).parse_args(arguments)
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # what is loaded and from where is the service's news, not this command's
    findings = []
    try:
        for finding in findings_of(options):
            findings.append(finding)
            if not options.json:
                _print(finding)
    finally:
        logging.disable(before)
    if options.json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=1, ensure_ascii=False))  # noqa: T201
    return 1 if any(finding.level is Level.WRONG for finding in findings) else 0


def findings_of(options: argparse.Namespace) -> Iterator[Finding]:
    """Yield what every check finds; only settings that cannot be read end it early."""
    try:
        config = Settings()
        catalog = load_catalog(config.model_catalog)
    except (SettingsError, ValidationError) as error:
        yield wrong("settings", what_is_wrong(error), "Correct them, then ask again.")
    except CatalogError as error:
        yield wrong("catalog", str(error), "Correct the file that MODEL_CATALOG names.")
    else:
        yield from _checks(catalog, config, options)


def _checks(catalog: Catalog, config: Settings, options: argparse.Namespace) -> Iterator[Finding]:
    from immich_bento.doctor.answers import check_answers
    from immich_bento.doctor.database import check_database
    from immich_bento.doctor.immich import check_immich
    from immich_bento.doctor.machine import check_machine
    from immich_bento.doctor.proxy import check_proxy
    from immich_bento.doctor.weights import check_weights

    yield from check_machine(config)
    yield from check_weights(catalog, config)
    yield from check_answers(catalog, config, options.url, options.wait)
    yield from check_database(config)
    yield from check_immich(catalog, config)
    yield from check_proxy(options.proxy)


def _print(finding: Finding) -> None:
    print(f"[{MARKS[finding.level]}] {finding.subject}: {finding.detail}")  # noqa: T201
    if finding.todo:
        print(f"         -> {finding.todo}")  # noqa: T201
    sys.stdout.flush()
