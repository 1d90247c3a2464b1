"""Docstrings of functions and properties begin with a verb, those of modules and classes name the thing. ruff's D401
looks at functions alone, and leaves out properties.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from tests.test_layers import PRODUCT, WORKSHOP

QUESTIONS = {"What", "Which", "Whether", "How", "Who", "Whose", "Where", "When", "Why"}


Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(tree: ast.AST, kind: type[Documented]) -> Iterator[tuple[Documented, str]]:
    """Yield all nodes of a kind that have a docstring, and the first word of it."""
    for node in ast.walk(tree):
        if isinstance(node, kind):
            text = ast.get_docstring(node)
            if text:
                yield node, text.split()[0].strip(":,.")


def is_property(node: ast.AST) -> bool:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any(getattr(one, "id", getattr(one, "attr", "")) in ("property", "cached_property") for one in decorators)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in (PRODUCT | WORKSHOP).items()}


def test_what_a_property_returns_is_said_as_of_any_function(trees: dict[str, ast.AST]) -> None:
    found = [
        f"{name}, line {getattr(node, 'lineno', 0)}: {word}"
        for name, tree in trees.items()
        for node, word in docstrings(tree, ast.FunctionDef)
        if is_property(node) and word != "Return"
    ]
    assert found == []


@pytest.mark.parametrize("kind", [ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef])
def test_no_docstring_is_half_a_question(trees: dict[str, ast.AST], kind: type[Documented]) -> None:
    found = [
        f"{name}, line {getattr(node, 'lineno', 0)}: {word}"
        for name, tree in trees.items()
        for node, word in docstrings(tree, kind)
        if word in QUESTIONS
    ]
    assert found == []
