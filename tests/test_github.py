"""The files that GitHub reads: the workflow runs what the Makefile has, on the supported Pythons, with few rights; the
issue forms are well-formed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_packaging import PYTHONS

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


RIGHTS = {
    "release.yml": {"images": {"contents": "read", "packages": "write"}, "notes": {"contents": "write"}},
}
"""Jobs that need more than to read, and what."""
PUBLISHERS = ("actions", "docker")


def read(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_rights_and_an_end(path: Path) -> None:
    workflow = read(path)
    more = RIGHTS.get(path.name, {})
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert True in workflow, "`on:` is read as the key True"
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60
        assert job.get("permissions") == more.get(name)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_githubs_or_dockers_and_pinned_by_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps(read(path)) if "uses" in step]
    assert used
    publishers = "|".join(PUBLISHERS)
    assert [action for action in used if not re.fullmatch(rf"({publishers})/[a-z-]+@v\d+", action)] == []


def test_every_command_of_the_tests_is_a_target_of_the_makefile() -> None:
    path = ROOT / ".github/workflows/test.yml"
    commands = [step["run"] for step in steps(read(path)) if "run" in step]
    assert commands
    for command in commands:
        make, target, *variables = command.split()
        assert make == "make"
        assert variables == ["PYTHON=python"]
        planned = subprocess.run(
            ["make", "--dry-run", "--question", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert planned.returncode in (0, 1), planned.stderr  # 2: there is no such target


def test_all_supported_pythons_are_tested_and_pips_downloads_are_kept() -> None:
    jobs = read(ROOT / ".github/workflows/test.yml")["jobs"]
    assert tuple(jobs["test"]["strategy"]["matrix"]["python"]) == PYTHONS
    for job in jobs.values():
        (setup,) = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
        assert setup["cache"] == "pip"
        assert list(ROOT.glob(setup["cache-dependency-path"]))


def test_the_workflow_does_what_ci_run_does() -> None:
    ran = {step["run"].split()[1] for step in steps(read(ROOT / ".github/workflows/test.yml")) if "run" in step}
    assert ran == set(re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_asks_questions_with_labels_and_one_id_each(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [question["id"] for question in questions]
    assert len(ids) == len(set(ids)) > 0
    for question in questions:
        assert question["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert question["attributes"]["label"]
        assert all(isinstance(option, str | dict) for option in question["attributes"].get("options", ()))
    assert any(question.get("validations", {}).get("required") for question in questions)


def test_there_are_forms_for_faults_answers_and_wishes() -> None:
    assert [path.name for path in FORMS] == ["bug.yml", "feature.yml", "wrong-answer.yml"]
    config = read(ROOT / ".github/ISSUE_TEMPLATE/config.yml")
    assert config["blank_issues_enabled"] is False
    assert all(link["url"].startswith("https://") and link["about"] for link in config["contact_links"])


def test_a_release_builds_what_the_makefile_builds_on_a_base_with_a_digest() -> None:
    workflow = read(ROOT / ".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    images = workflow["jobs"]["images"]
    targets = {one["target"]: one["platforms"] for one in images["strategy"]["matrix"]["include"]}
    assert targets == {"image": "linux/amd64,linux/arm64", "image-cuda": "linux/amd64"}
    (step,) = [step for step in images["steps"] if "run" in step]
    options = step["env"]["OPTIONS"]
    assert "docker-image://${{ vars.PYTHON_IMAGE }}" in options
    for wanted in ("--opt push", "attest=type=sbom", "attest=type=provenance"):
        assert wanted in options
    assert "${{" not in step["run"], "what a tag is called must not become a command"
