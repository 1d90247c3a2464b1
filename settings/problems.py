"""The problems of settings, in words for the person who made them. Values are not repeated: one may be a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from settings import Settings
from settings.lists import names
from settings.variables import variable_of

_SENTENCES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "model": "is a group: set the names below it (docs/settings.md)",
    "string_too_short": "must not be empty",
}
"""By pydantic's type of error, or by its first word."""
_FIELD = re.compile(r'field "(\w+)"')


def what_is_wrong(error: SettingsError | ValidationError) -> str:
    """Return every setting that is wrong, by its name in the environment, and what it must be."""
    if isinstance(error, SettingsError):
        found = _FIELD.search(str(error))
        field = Settings.model_fields.get(found[1]) if found else None
        variable = variable_of(found[1], field) if found and field is not None else "one of them"
        problems = [f"  {variable}: {_SENTENCES['model']}."]
    else:
        problems = [f"  {_variable(item['loc'])}: {_sentence(item)}" for item in error.errors()]
    return "\n".join(["these settings are wrong (docs/settings.md lists them all).", *problems])


def settings_that_name(model: str, settings: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the settings, as the environment has them, whose text or list of names has ``model`` in it."""
    for name, field in type(settings).model_fields.items():
        variable = prefix + variable_of(name, field)
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from settings_that_name(model, value, variable + "__")
        elif field.annotation in (str, str | None) and model in names(value):
            yield variable


def _variable(place: tuple[int | str, ...]) -> str:
    first, *rest = map(str, place)
    field = Settings.model_fields.get(first)  # given from Python, under its own name
    return "__".join([variable_of(first, field) if field is not None else first, *rest]).upper()


def _sentence(item: Mapping[str, Any]) -> str:
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(' or ', ', ').replace(chr(39), '')}."
    sentence = _SENTENCES.get(kind) or _SENTENCES.get(kind.partition("_")[0])
    if sentence is not None:
        return f"{sentence.format(**{name: _plain(bound) for name, bound in context.items()})}."
    return str(item["msg"]).removeprefix("Value error, ")


def _plain(bound: object) -> object:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
