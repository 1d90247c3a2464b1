"""deploy/trim.py: what it removes is there to be removed, and what it compiles is the same in every build."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from tools.harness.server import ROOT

PACKAGES = Path(sysconfig.get_path("purelib"))


@pytest.fixture(scope="module")
def trim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trim", ROOT / "deploy/trim.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pattern_still_matches_something_and_has_a_reason(trim: ModuleType) -> None:
    assert [pattern for pattern in trim.REMOVED if not list(PACKAGES.glob(pattern))] == []
    assert [pattern for pattern, why in trim.REMOVED.items() if len(why) < 5] == []


def test_what_is_removed_is_counted_and_the_rest_stays(trim: ModuleType, tmp_path: Path) -> None:
    for name in ("openvino/cmake/x.cmake", "openvino/libs/libopenvino.so", "hf_xet/a.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    assert trim.remove(tmp_path) == 8
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["libopenvino.so"]


def test_what_is_compiled_is_the_same_whenever_it_was_made(trim: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    compiled = []
    for seconds in (1, 2):
        source.write_text("X = 1\n")
        os.utime(source, (seconds, seconds))
        assert trim.compile_sources([source]) == 1
        compiled.append(next((tmp_path / "__pycache__").iterdir()).read_bytes())
    assert compiled[0] == compiled[1]
