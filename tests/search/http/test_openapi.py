"""The description of search's HTTP API: complete, well formed, and the same as the committed one."""

from __future__ import annotations

import json
import re
from typing import Any

from errors import ErrorCode
from search.http.api import create_app, openapi_json
from tools.harness.server import ROOT

DOCUMENT: dict[str, Any] = create_app().openapi()
OPERATIONS = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]


def test_the_committed_document_is_the_one_that_is_served() -> None:
    committed = (ROOT / "docs/openapi.json").read_bytes()
    assert committed == openapi_json(), "Write it anew: python -m search.http.api > docs/openapi.json"


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    used = set(re.findall(r'"#/components/schemas/(\w+)"', openapi_json().decode()))
    assert used == set(DOCUMENT["components"]["schemas"])


def test_every_operation_lists_its_errors_by_status_in_our_own_form() -> None:
    assert len(OPERATIONS) == 4
    for operation in OPERATIONS:
        for status, response in operation["responses"].items():
            schema = response["content"]["application/json"]["schema"]
            assert (schema == {"$ref": "#/components/schemas/Problem"}) is (status != "200")
        assert {"401", "403", "422", "503", "504", "500"} <= set(operation["responses"])
        assert ErrorCode.UNAUTHORIZED.value in json.dumps(operation["responses"]["401"])


def test_operations_are_told_apart_by_name_and_take_the_key_in_either_header() -> None:
    names = [operation["operationId"] for operation in OPERATIONS]
    assert sorted(names) == ["find", "read_text", "reprocess", "stats"]
    for operation in OPERATIONS:
        assert operation["security"] == [{"api-key": []}, {"bearer": []}]


def test_what_a_query_must_have_is_marked_and_everything_is_described() -> None:
    parameters = {one["name"]: one for one in DOCUMENT["paths"]["/search"]["get"]["parameters"]}
    assert parameters["q"]["required"]
    assert not parameters["limit"]["required"]
    assert (parameters["limit"]["schema"]["minimum"], parameters["limit"]["schema"]["maximum"]) == (1, 100)
    assert all(one["description"] for one in parameters.values())
