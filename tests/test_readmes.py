"""Pages in two languages say the same: as many headings and tables, the same commands, links and names.

Comments in blocks of commands are in each page's own language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_settings import LEAVES

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
PAGES = (ENGLISH, "docs/in-immich.md", "docs/page.md")
"""Those that are there in Chinese too."""
NAMES = {Path(name).name for page in PAGES for name in (page, page.replace(".md", ".zh-CN.md"))}


def chinese(page: str) -> str:
    return page.replace(".md", ".zh-CN.md")


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(page: str) -> list[str]:
    return re.findall(r"^(#+) ", without_blocks(page), re.MULTILINE)


def blocks(page: str) -> list[str]:
    """Return the blocks of commands, without their comments."""
    found = re.findall(r"^```.*?^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(r"[ ]+# .*$", "", block, flags=re.MULTILINE) for block in found]


def links(page: str) -> list[str]:
    return sorted(set(re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))) - NAMES)


def names(page: str) -> set[str]:
    """Return the inline code that is not the address, whose placeholder is in the page's own language."""
    return {code for code in re.findall(r"`([^`\n]+)`", without_blocks(page)) if not code.startswith("http://<")}


def shape_of_tables(page: str) -> list[int]:
    return [line.count("|") for line in without_blocks(page).splitlines() if line.startswith("|")]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("part", [headings, blocks, links, names, shape_of_tables], ids=lambda part: part.__name__)
def test_a_chinese_page_has_the_same_parts_as_the_english_one(part: Callable[[str], object], page: str) -> None:
    assert part(chinese(page)) == part(page)


@pytest.mark.parametrize("page", PAGES)
def test_the_two_pages_lead_to_each_other(page: str) -> None:
    assert f"]({Path(chinese(page)).name})" in (ROOT / page).read_text(encoding="utf-8")
    assert f"]({Path(page).name})" in (ROOT / chinese(page)).read_text(encoding="utf-8")


def test_the_settings_that_the_readmes_name_exist() -> None:
    assigned = {code.partition("=")[0] for code in names(ENGLISH) if re.match(r"[A-Z_]+=", code)}
    assert assigned
    assert assigned <= set(LEAVES)
