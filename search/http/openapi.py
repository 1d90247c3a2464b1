"""The OpenAPI 3.1 document of search's HTTP API. ``python -m search.http.openapi > docs/openapi.json`` writes the
committed copy.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from errors import ErrorCode
from search.http.answers import Problem
from search.http.operations import OPERATIONS, Operation

PATH = "/openapi.json"
_REFERENCE = "#/components/schemas/{model}"
_KEY_SCHEMES: dict[str, dict[str, str]] = {
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "The service's API_AUTH_KEY."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key, as `Authorization: Bearer …`."},
}


def document() -> dict[str, Any]:
    """The whole document; the same at every call."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "immich-bento search",
            "version": "1",
            "description": "Finds pictures by the text in them and by their meaning. docs/search.md explains it to "
            "people.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{name: []} for name in _KEY_SCHEMES],
        "paths": _paths(),
        "components": {"schemas": _schemas(), "securitySchemes": _KEY_SCHEMES},
    }


def to_json() -> bytes:
    """The document as it is served and committed."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _paths() -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return paths


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    parameters = [*_path_parameters(operation), *_query_parameters(operation)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    described["responses"] = {
        "200": {"description": "Done.", "content": _content(operation.answer)}
    } | _error_responses(operation.errors)
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    if "{id}" not in operation.path:
        return []
    return [
        {
            "name": "id",
            "in": "path",
            "required": True,
            "description": "The asset's id.",
            "schema": {"type": "string", "format": "uuid"},
        }
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.parameters is None:
        return []
    schema = operation.parameters.model_json_schema()
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": about.get("description", ""),
            "schema": {key: value for key, value in about.items() if key not in ("title", "description")},
        }
        for name, about in schema["properties"].items()
    ]


def _error_responses(errors: tuple[ErrorCode, ...]) -> dict[str, Any]:
    """One response per status: which codes it may carry."""
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.value)
    return {
        str(status): {"description": "`code` is " + " or ".join(codes) + ".", "content": _content(Problem)}
        for status, codes in sorted(by_status.items())
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _schemas() -> dict[str, Any]:
    answers: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (operation.answer, "serialization") for operation in OPERATIONS
    ]
    bodies: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (one.body, "validation") for one in OPERATIONS if one.body is not None
    ]
    _, definitions = models_json_schema([*answers, *bodies, (Problem, "serialization")], ref_template=_REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
    return dict(sorted(schemas.items()))


if __name__ == "__main__":
    sys.stdout.buffer.write(to_json())
