"""The files that GitHub reads: the workflow runs what the Makefile has, on the supported Pythons, with few rights; the
issue forms are well-formed.
"""

from __future__ import annotations

import re
import subprocess
import sys
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
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_rights_and_an_end(path: Path) -> None:
    workflow = read(path)
    more = RIGHTS.get(path.name, {})
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"] == f"{path.stem}-${{{{ github.ref }}}}", "not that of who calls it"
    assert True in workflow, "`on:` is read as the key True"
    for name, job in workflow["jobs"].items():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 60
        assert job.get("permissions") == more.get(name)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_githubs_or_dockers_and_pinned_by_their_commit(path: Path) -> None:
    used = re.findall(r"^ +- uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(used) == len([step for step in steps(read(path)) if "uses" in step]) > 0
    publishers = "|".join(PUBLISHERS)
    pinned = rf"({publishers})/[a-z-]+@[0-9a-f]{{40}} # v\d+\.\d+\.\d+"
    assert [action for action in used if not re.fullmatch(pinned, action)] == []


def audit(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Let zizmor read workflows: their form, and what an attacker could use."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("zizmor"),
        "--offline",
        "--no-progress",
        "--format=plain",
        *paths,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing_in_the_workflows(tmp_path: Path) -> None:
    done = audit(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    spoilt = tmp_path / "spoilt.yml"
    spoilt.write_text(WORKFLOWS[0].read_text().replace('"$GITHUB_REF_NAME" "$BASE"', "${{ github.ref_name }}"))
    assert "template-injection" in audit(spoilt).stdout


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


def test_the_workflow_does_what_ci_run_does_and_lints_the_workflows() -> None:
    ran = {step["run"].split()[1] for step in steps(read(ROOT / ".github/workflows/test.yml")) if "run" in step}
    assert ran == {"lint-workflows", *re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)}


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


def test_a_release_follows_the_tests_and_builds_what_the_makefile_builds_on_a_base_with_a_digest() -> None:
    workflow = read(ROOT / ".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert workflow["jobs"]["test"] == {"uses": "./.github/workflows/test.yml"}
    assert "workflow_call" in read(ROOT / ".github/workflows/test.yml")[True]
    images = workflow["jobs"]["images"]
    assert (images["needs"], workflow["jobs"]["notes"]["needs"]) == ("test", "images")
    targets = {one["target"]: one["platforms"] for one in images["strategy"]["matrix"]["include"]}
    assert targets == {"image": "linux/amd64,linux/arm64", "image-cuda": "linux/amd64"}
    checked, built = [step for step in images["steps"] if "run" in step]
    assert checked["run"] == 'python -m tools.image.release check "$GITHUB_REF_NAME" "$BASE"'
    options = built["env"]["OPTIONS"]
    assert options.endswith("docker-image://${{ vars.PYTHON_IMAGE }}")
    for wanted in ("--opt push", "rewrite-timestamp=true", "attest=type=sbom", "attest=type=provenance"):
        assert wanted in options
    assert "ghcr.io/${GITHUB_REPOSITORY,,} " in built["run"], "a registry takes no capitals"
    for step in steps(workflow):
        assert "${{" not in step.get("run", ""), "what a tag is called must not become a command"


def test_no_download_of_another_branch_gets_into_a_release() -> None:
    kept = [step for step in steps(read(ROOT / ".github/workflows/release.yml")) if "cache" in step.get("with", {})]
    assert kept == []
