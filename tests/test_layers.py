"""Which file may import which: arrows only point down the layers, and no two rooms import each other.

All imports count, those inside functions too. docs/architecture.md shows the same layers to people.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    ("service", "immich_bento"),
    ("compat", "web"),
    ("search",),
    ("serving",),
    ("runners",),
    ("models",),
    ("settings", "sql", "errors", "logs", "metrics"),
)
"""Top-level names of the product, from the highest layer to the leaves. A file imports its own package and lower ones;
leaves may import each other.
"""
RANK = {name: -number for number, names in enumerate(LAYERS) for name in names}

ENTRANCES: Mapping[str, tuple[str, ...]] = {
    "runners": ("runners.contract", "runners.task", "runners.tasks", "runners.pictures.header", "runners.cancellation"),
    "models": ("models.catalog", "models.entry"),
}
"""What the layers above ``runners`` import of it and of ``models``: the seam and the catalog, never what computes."""
ABOVE_THE_SEAM = ("compat", "search", "web", "serving")

ALLOWED_ARROWS: Mapping[tuple[str, str], str] = {
    (
        "search.indexing.orientation",
        "runners.pictures.decode",
    ): "the command turns pictures in its own process",
    (
        "search.embedded.setup",
        "models.capacity",
    ): "PostgreSQL's share of the memory is one of the machine's, or the container's",
    ("search.indexing.local", "runners.local"): "a process of a Ray cluster computes by itself",
}
"""(importing module, imported module): why it is allowed nevertheless."""

ALLOWED_CIRCLES: Mapping[frozenset[str], str] = {
    frozenset({"search.embedded", "search.immich", "search.query", "search.store"}): (
        "the store folds and cuts texts as queries do, and starts the embedded database, whose errors are the store's"
    ),
}
"""Rooms that import each other, and why."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """One import of a module of this repository."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"


def top(module: str) -> str:
    return module.partition(".")[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_modules(*folders: str) -> dict[str, Path]:
    """Map module names to files: those of ``folders`` and the loose files of the root that are layers."""
    loose = [path for path in ROOT.glob("*.py") if path.stem in RANK]
    paths = [*loose, *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return {module_name(path): path for path in sorted(paths)}


PRODUCT = find_modules(*(name for name in RANK if (ROOT / name).is_dir()))
WORKSHOP = find_modules("tools")
TESTS = find_modules("tests")
EVERYTHING = PRODUCT | WORKSHOP | TESTS


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the modules of this repository that ``tree`` imports, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import module` imports the module, `from module import name` the module before it.
            names = [
                inner if (inner := f"{node.module}.{alias.name}") in EVERYTHING else node.module for alias in node.names
            ]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name in EVERYTHING)


@cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    return tuple(imported_modules(ast.parse(path.read_text(encoding="utf-8"))))


def arrows(modules: Mapping[str, Path]) -> list[Arrow]:
    return [
        Arrow(source, target, line)
        for source, path in modules.items()
        for target, line in imports_of(path)
        if target != source
    ]


def circles(graph: Mapping[str, set[str]]) -> list[frozenset[str]]:
    """Return the sets of two and more nodes that reach each other: Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[frozenset[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = frozenset(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def room(module: str) -> str:
    """Return the folder below the top-level package that holds ``module``; a file that lies loose is its own room."""
    parts = module.split(".")
    folder = ".".join(parts[:2])
    return folder if (ROOT / Path(*parts[:2])).is_dir() else module


def test_every_top_level_package_has_a_layer() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert packages - {"tests", "tools"} <= set(RANK)


def test_arrows_point_down() -> None:
    up = [
        str(arrow)
        for arrow in arrows(PRODUCT)
        if top(arrow.target) in RANK
        and top(arrow.target) != top(arrow.source)
        and RANK[top(arrow.target)] >= RANK[top(arrow.source)]
        and top(arrow.source) not in LAYERS[-1]
        and (arrow.source, arrow.target) not in ALLOWED_ARROWS
    ]
    leaves_up = [
        str(arrow)
        for arrow in arrows(PRODUCT)
        if top(arrow.source) in LAYERS[-1] and top(arrow.target) not in LAYERS[-1]
    ]
    assert up + leaves_up == []


def test_what_computes_is_imported_through_the_seam_alone() -> None:
    past = [
        str(arrow)
        for arrow in arrows(PRODUCT)
        if top(arrow.source) in ABOVE_THE_SEAM
        and arrow.target not in ENTRANCES.get(top(arrow.target), (arrow.target,))
        and (arrow.source, arrow.target) not in ALLOWED_ARROWS
    ]
    assert past == []


def test_nothing_of_the_product_imports_the_workshop_or_the_tests() -> None:
    assert [str(arrow) for arrow in arrows(PRODUCT) if top(arrow.target) in ("tools", "tests")] == []


def test_modules_are_named_by_nouns_and_not_by_participles() -> None:
    assert [module for module in PRODUCT if module.endswith("ed") and module != "search.embedded"] == []


def test_insides_of_bentoml_circus_and_uvicorn_are_touched_in_one_room_alone() -> None:
    inside = re.compile(r"^\s*(?:from|import)\s+(?:bentoml\._internal|_bentoml_\w+|circus|uvicorn)\b", re.MULTILINE)
    found = [module for module, path in PRODUCT.items() if inside.search(path.read_text(encoding="utf-8"))]
    assert [module for module in found if not module.startswith("runners.bento.")] == []
    assert found != []


def test_nothing_of_the_workshop_imports_the_tests() -> None:
    up = [
        str(arrow)
        for arrow in arrows(WORKSHOP)
        if top(arrow.target) == "tests" and (arrow.source, arrow.target) not in ALLOWED_ARROWS
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for arrow in arrows(PRODUCT | WORKSHOP):
        graph.setdefault(arrow.source, set()).add(arrow.target)
    assert [sorted(circle) for circle in circles(graph)] == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for arrow in arrows(PRODUCT):
        if room(arrow.source) != room(arrow.target):
            graph.setdefault(room(arrow.source), set()).add(room(arrow.target))
    found = circles(graph)
    assert [sorted(circle) for circle in found if circle not in ALLOWED_CIRCLES] == []


def test_the_architecture_page_draws_every_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"^```\nservice\.py.*?^```", page, re.DOTALL | re.MULTILINE)
    assert tree
    drawn: set[str] = set()
    top_level = ""
    for line in tree[0].splitlines():
        found = re.match(r"( *)((?:[a-z_]+(?:/|\.\w+) ?)+)", line)
        if found:
            top_level = top_level if found[1] else found[2].split()[0].rstrip("/")
            drawn |= {f"{top_level}/{name}" if found[1] else name for name in found[2].split()}
    rooms = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/*/__init__.py")} | {
        path.parent.relative_to(ROOT) for path in ROOT.glob("*/__init__.py")
    }
    expected = {f"{room.as_posix()}/" for room in rooms if room.parts[0] not in ("tests", "tools")}
    assert expected - drawn == set()
    assert [name for name in sorted(drawn) if not (ROOT / name).exists()] == []


def test_every_exception_is_still_needed() -> None:
    graph: dict[str, set[str]] = {}
    for arrow in arrows(PRODUCT):
        if room(arrow.source) != room(arrow.target):
            graph.setdefault(room(arrow.source), set()).add(room(arrow.target))
    assert set(ALLOWED_CIRCLES) <= set(circles(graph))
    assert set(ALLOWED_ARROWS) <= {(arrow.source, arrow.target) for arrow in arrows(PRODUCT | WORKSHOP)}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [{"a", "b", "c"}]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c"}}, [{"a", "b"}, {"c", "d"}]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[set[str]]) -> None:
    assert sorted(map(sorted, circles(graph))) == sorted(map(sorted, expected))
