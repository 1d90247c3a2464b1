"""The docs are true: every command in them is run by a test or listed here as not run, and every link leads somewhere.

A command is a line of a ```sh block, or inline code that begins with one of ``PROGRAMS`` and has an argument. Those of
this project are checked as they stand: targets by make, options by the parser of the command itself.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.test_settings import LEAVES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/**/*.md"), *ROOT.glob("deploy/*.md"))
)
PROGRAMS = (
    "make",
    "python",
    "pip",
    "pytest",
    "bentoml",
    "curl",
    "docker",
    "podman",
    "git",
    "npm",
    "pg_dump",
    "immich-bento",
)
OUR_MODULES = ("models", "search", "tools.bench", "tools.demo", "tools.fuzz", "tools.quantize", "tools.soak")
"""Packages with a ``__main__``; ``python -m`` of another name of ours is a module."""
VARIABLES = {
    "$ID": "6f1c0c1e-7a0b-4d49-9d3e-0d8f6b6f0e57",
    "$KEY": "key",
    "$OWNERS_URL": "postgresql://owner@localhost/x",
}
"""What stands in a command for a value of the reader's."""

RUN = {
    "make serve": "tests/test_packaging.py::test_make_serve_passes_signals_on",
    "make demo": "tests/e2e/test_demo.py::test_the_demo_finds_what_it_promises_and_is_found_again",
    "make demo-stop": "tests/e2e/test_demo.py::test_the_demo_finds_what_it_promises_and_is_found_again",
    "bentoml serve": "tests/e2e/test_predict.py::",
    "bentoml build": "tests/e2e/test_bento.py::",
    "bentoml models": "tests/models/test_convert_checkpoints.py::test_bentoml_itself_lists_what_was_converted",
    "bentoml containerize": "tests/e2e/test_bento.py::test_containerize_finds_the_same_dockerfile",
    "models list": "tests/models/test_command.py::test_list_names_every_model_with_size_place_and_licence",
    "models pull": "tests/models/test_pull.py::test_a_pulled_model_is_in_the_store_verified_and_served_from_there",
    "models verify": "tests/models/test_command.py::test_verify_reads_every_byte_of_what_is_here",
    "models path": "tests/models/test_command.py::test_path_prints_a_folder_or_the_files_where_they_lie_in_several",
    "models rm": "tests/models/test_command.py::test_rm_empties_the_store_and_the_cache_folder",
    "models convert": "tests/models/test_convert_checkpoints.py::"
    "test_a_model_of_the_users_catalog_is_converted_stored_and_found",
    "immich-bento serve": "tests/e2e/test_bento.py::",
    "immich-bento doctor": "tests/immich_bento/test_doctor.py::",
    ".venv/bin/immich-bento doctor": "tests/immich_bento/test_doctor.py::",
    "search index": "tests/e2e/test_indexing.py::test_a_library_is_indexed_kept_up_to_date_and_found",
    "search find": "tests/search/command/test_main.py::test_migrate_stats_and_failed_work_without_a_service",
    "search migrate": "tests/search/command/test_main.py::test_migrate_stats_and_failed_work_without_a_service",
    "search stats": "tests/search/command/test_main.py::test_migrate_stats_and_failed_work_without_a_service",
    "search failed": "tests/search/command/test_main.py::test_migrate_stats_and_failed_work_without_a_service",
    "search reprocess": "tests/e2e/test_indexing.py::test_pictures_are_done_again_and_one_that_is_unknown_is_told",
    "search sync": "tests/search/command/test_main.py::test_migrate_stats_and_failed_work_without_a_service",
    "search grants": "tests/search/store/test_grants.py::test_the_commands_print_them",
    "search check": "tests/search/store/test_grants.py::test_the_check_names_what_is_missing_with_the_statement",
    "search uninstall": "tests/search/store/test_grants.py::test_the_commands_print_them",
    "tools.soak": "tests/tools/test_soak.py::test_it_is_drawn_anew_from_what_was_kept",
    "tools.quantize": "tests/tools/test_quantize.py::test_the_twin_lies_beside_the_graph_with_what_was_measured",
    "tools.tiny.train": "tests/tools/test_tiny_training.py::"
    "test_training_goes_on_where_it_was_stopped_and_ends_in_a_model_of_less_than_12_mb",
    "tools.tiny.export": "tests/tools/test_tiny_training.py::"
    "test_training_goes_on_where_it_was_stopped_and_ends_in_a_model_of_less_than_12_mb",
    "tools.bench all": "tests/tools/bench/test_contest.py::",
    "tools.bench compare": "tests/tools/bench/test_compare.py::",
    "tools.bench.immich_weights": "tests/tools/bench/test_immich_weights.py::"
    "test_the_settings_of_both_servers_are_printed",
    "tools.bench interactive": "tests/tools/bench/test_contest.py::",
    "tools.bench memory": "tests/tools/bench/test_contest.py::",
    "tools.bench start": "tests/tools/bench/test_contest.py::",
    "tools.bench scaling": "tests/tools/bench/test_contest.py::",
    "tools.bench parts": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench clip-models": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench first-start": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench container": "tests/image/test_benchmark.py::",
    "tools.bench memory-limit": "tests/image/test_benchmark.py::test_what_a_limit_of_memory_does_is_counted",
    "tools.bench batching": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench ping": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench transport": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench routing": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench search-speed": "tests/tools/bench/test_search_corpus.py::test_speed_is_measured_and_printed",
    "tools.bench search-kinds": "tests/tools/bench/test_search_corpus.py::",
    "tools.bench search-slow": "tests/tools/bench/test_search_corpus.py::test_slow_searches_are_measured_and_printed",
    "tools.bench search-quality": "tests/tools/bench/test_search_corpus.py::",
    "tools.bench bar": "tests/tools/bench/test_benchmarks.py::",
    "tools.bench reading": "tests/tools/bench/test_reading.py::",
    "curl /predict": "tests/e2e/test_predict.py::test_clip_image_and_text_share_a_space_of_512",
    "curl /ocr": "tests/e2e/test_mtphotos.py::test_pages_are_read_and_their_boxes_lie_around_their_lines",
    "curl /search": "tests/e2e/test_search.py::test_text_in_pictures_is_found",
    "curl /stats": "tests/e2e/test_search.py::test_stats_count_what_was_indexed",
    "curl /assets/$ID/ocr": "tests/search/http/test_api.py::",
    "curl /assets/$ID/reprocess": "tests/search/http/test_api.py::",
}
"""Command -> a test that does the same; a name left out after ``::`` means several tests of the file.

Options are held to the command's own parser, whichever test runs it.
"""
NOT_RUN = {
    "make test": "it runs this test",
    "make test-slow": "it runs this test",
    "make test-large": "it runs this test",
    "make test-page": "it runs tests/e2e/test_page.py",
    "make test-ray": "it runs tests/e2e/test_ray.py",
    "make lint": "it is half of what a submission must pass",
    "make lint-workflows": "it needs npx and the package registry; tests/test_github.py runs zizmor",
    "make format": "it changes the working tree",
    "make lock": "it needs uv and the package index, and would change the locks",
    "make bench": "it takes 20 minutes of a quiet machine; the tests run its parts",
    "make bench-against": "it installs another commit; the tests run it against this one",
    "make soak": "it takes an hour; a slow test runs two minutes of it",
    "make fuzz": "it takes an hour and packages of its own; the tests replay what it found",
    "make train-tiny": "it takes two hours and npm; the tests train for seconds",
    "make bento": "bentoml build, which tests/e2e/test_bento.py runs",
    "make image": "there is no container engine where the tests run",
    "make image-cuda": "there is no container engine where the tests run",
    "make test-image": "it needs a container engine",
    "make test-index": "it asks the package index",
    "docker run": "tests/image does it, where there is a container engine",
    "docker exec": "tests/image does it, where there is a container engine",
    "docker compose": "tests/image does it, where there is a container engine",
    "kubectl create": "there is no cluster",
    "kubectl apply": "there is no cluster; tests/deploy/test_kubernetes.py builds what it would send",
    "cd deploy": "it is the shell's",
    "cp .env.example": "it is the shell's",
    ".venv/bin/ray start": "it starts a cluster that outlives the command; tests/e2e/test_ray.py has one of its own",
    ".venv/bin/ray stop": "it ends every Ray process of the machine",
    "pip install": "it needs the package index",
    "pytest": "it runs this test, or others",
    "git pull": "it would change the working tree",
    "git worktree": "it would leave a second working tree",
    "tools/bench/gpu.sh": "there is no GPU; tests/tools/bench/test_gpu.py runs what needs none",
    "git clone": "it needs Immich's repository",
    "cd immich/machine-learning": "it is the shell's",
    "uv sync": "it installs Immich's server",
    "uv run": "it is Immich's server",
    "pg_dump": "the dump that Immich makes is its own",
    "tools.bench indexing": "it needs ray, and minutes; tests/e2e/test_ray.py indexes both ways",
    "tools.tiny.evaluate": "npm has to fetch the artwork; a slow test does what it does",
}
"""Command -> why no test runs it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, cut as a shell cuts it."""

    page: str
    text: str
    environment: tuple[str, ...]
    words: tuple[str, ...]
    inline: bool = False
    """It stands in a sentence, where a command may be named without its arguments."""

    @property
    def module(self) -> str | None:
        """The module of ``python -m``."""
        return self.words[2] if self.words[0] == "python" and self.words[1:2] == ("-m",) else None

    @property
    def kind(self) -> str:
        """The key of ``RUN`` and ``NOT_RUN`` that this command belongs under."""
        program, *rest = self.words
        if self.module in ("pip", "pytest"):
            return "pytest" if self.module == "pytest" else f"pip {self.words[3]}"
        if self.module is not None:
            rest = [word for word in self.words[3:4] if not word.startswith("-")]
            if self.module == "tools.bench" and not rest and len(self.words) > 3:
                rest = ["compare"]
            return " ".join((self.module, *(rest if self.module in ("models", "search", "tools.bench") else ())))
        if program == "make":
            return f"make {make_target(rest)}"
        if program == "docker" and rest[:1] == ["compose"]:
            return "docker compose"
        if program == "curl":
            (address,) = [word for word in rest if word.startswith("http://")]
            return f"curl {urlsplit(address).path}"
        return program if program in ("pg_dump", "pytest") else " ".join((program, *rest[:1]))


def make_target(words: list[str]) -> str:
    skip = {at + 1 for at, word in enumerate(words) if word == "-C"}
    return next(
        word for at, word in enumerate(words) if at not in skip and "=" not in word and not word.startswith("-")
    )


def split(page: str, line: str, *, inline: bool = False) -> Iterator[Command]:
    """Yield the commands of a line: those that ``&&`` and ``|`` join are commands of their own."""
    for name, value in VARIABLES.items():
        line = re.sub(re.escape(name) + r"\b", value, line) if name != "$ID" or "curl" not in line else line
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in (*lexer, "&&"):
        if word not in ("&&", "|", "||", ";", "&"):
            words.append(word)
            continue
        environment = []
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            environment.append(words.pop(0))
        if words[:2] in (["immich-bento", "models"], ["immich-bento", "search"]):
            words[:2] = ["python", "-m", words[1]]
        if words:
            words[0] = re.sub(r"^(.*/)?python3?(\.\d+)?$", "python", words[0])
            yield Command(page, line.strip(), tuple(environment), tuple(words), inline)
        words = []


def commands_of(page: str) -> Iterator[Command]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.DOTALL | re.MULTILINE)
    for language, block in blocks.findall(text):
        if language in ("sh", "bash", "console", "shell"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from split(page, line)
    program = re.compile(rf"(?:[A-Z_0-9]+=\S+ )*(?:\S*/)?(?:{'|'.join(PROGRAMS)})[ ]\S")
    for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", blocks.sub("", text)):
        if program.match(inline) and not re.fullmatch(r"(\S*/)?python -m [\w.]+", inline):
            yield from split(page, inline, inline=True)


COMMANDS = [command for page in PAGES if page != "CHANGELOG.md" for command in commands_of(page)]
"""Those of CHANGELOG.md are of the past."""
each_command = pytest.mark.parametrize(
    "command", COMMANDS, ids=[f"{command.page}-{number}-{command.kind}" for number, command in enumerate(COMMANDS)]
)


def test_the_pages_have_commands() -> None:
    assert {"README.md", "docs/models.md", "docs/performance.md"} <= {command.page for command in COMMANDS}
    assert len(COMMANDS) > 60


@each_command
def test_a_command_is_run_by_a_test_or_listed_as_not_run(command: Command) -> None:
    assert (command.kind in RUN) != (command.kind in NOT_RUN), (
        f"{command.page} has `{command.text}`: give {command.kind!r} a line in RUN or NOT_RUN of tests/test_docs.py"
    )


def test_the_lists_hold_nothing_that_the_docs_do_not_have() -> None:
    assert set(RUN) | set(NOT_RUN) <= {command.kind for command in COMMANDS}


@pytest.mark.parametrize("kind", RUN)
def test_the_test_that_runs_a_command_exists(kind: str) -> None:
    path, name = RUN[kind].split("::")
    content = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name or 'test_'}", content, re.MULTILINE)


@each_command
def test_what_a_command_sets_are_settings(command: Command) -> None:
    names = [pair.partition("=")[0] for pair in command.environment]
    assert [name for name in names if name not in LEAVES] == []


class Accepted(Exception):
    """The parser has accepted the command line."""


@each_command
def test_the_programs_own_parser_accepts_a_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.words[0] == "make":
        words = [word for word in command.words[1:] if not word.startswith("PYTHON=")]
        if "-C" in words:
            del words[words.index("-C") : words.index("-C") + 2]
        planned = subprocess.run(
            ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert planned.returncode == 0, planned.stderr
    elif command.kind == "pytest":
        files = [word for word in command.words if word.startswith("tests/")]
        assert [file for file in files if not (ROOT / file).exists()] == []
    elif command.module == "tools.demo":
        assert command.words[3:] in ((), ("stop",))
    elif command.module is not None and command.module != "pip":
        name = f"{command.module}.__main__" if command.module in OUR_MODULES else command.module
        parse_args = argparse.ArgumentParser.parse_args

        def accept(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> None:
            parse_args(parser, arguments)
            raise Accepted

        named = command.inline and len(command.words) <= 4
        monkeypatch.setattr(sys, "argv", [name, *command.words[3:], *(["--help"] if named else [])])
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
        with pytest.raises((Accepted, SystemExit)) as ended:
            importlib.import_module(name).main()
        assert isinstance(ended.value, Accepted) or (named and str(ended.value) == "0")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        address = urlsplit(link)
        if address.scheme:
            continue
        target = (ROOT / page).parent / unquote(address.path) if address.path else ROOT / page
        if not target.exists() or (address.fragment and unquote(address.fragment) not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    """Those of this project: a path below one of its folders, or the bare name of a module."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"docs", "deploy", ".github"}
    modules = {path.name for folder in ours for path in (ROOT / folder).rglob("*.py")} | {
        path.name for path in ROOT.glob("*.py")
    }
    missing = []
    for code in re.findall(r"`([^`\s]+)`", text):
        named = code.partition("::")[0].rstrip("/")
        if "/" not in named:
            missing += [code] if re.fullmatch(r"[a-z_]+\.py", named) and named not in modules else []
        elif named.partition("/")[0] in ours and not any(sign in named for sign in "<*…"):
            missing += [] if (ROOT / named).exists() else [code]
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w.-]+\.md)\)", index))
