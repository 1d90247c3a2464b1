"""The description of search's HTTP API: complete, well formed, and the same as the committed one."""

from __future__ import annotations

import json
import re
from typing import Any

from errors import ErrorCode
from search.http.openapi import document, to_json
from search.http.operations import OPERATIONS
from tools.server import ROOT


def test_the_committed_document_is_the_one_that_is_served() -> None:
    committed = (ROOT / "docs/openapi.json").read_bytes()
    assert committed == to_json(), "Write it anew: python -m search.http.openapi > docs/openapi.json"


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    text = to_json().decode()
    schemas = set(document()["components"]["schemas"])
    used = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert used == schemas


def test_every_operation_lists_its_errors_by_status() -> None:
    paths = document()["paths"]
    for operation in OPERATIONS:
        described: dict[str, Any] = paths[operation.path][operation.method.lower()]
        statuses = {str(error.status) for error in operation.errors} | {"200"}
        assert set(described["responses"]) == statuses
        assert ErrorCode.UNAUTHORIZED.value in json.dumps(described["responses"]["401"])


def test_operations_are_told_apart_by_name_and_take_the_key() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert document()["security"] == [{"api-key": []}, {"bearer": []}]


def test_what_a_query_must_have_is_marked() -> None:
    parameters = {one["name"]: one for one in document()["paths"]["/search"]["get"]["parameters"]}
    assert parameters["q"]["required"]
    assert not parameters["limit"]["required"]
    assert (parameters["limit"]["schema"]["minimum"], parameters["limit"]["schema"]["maximum"]) == (1, 100)
