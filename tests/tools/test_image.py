"""``make image``: the tag, the labels, the lock of each variant, and what is said at the end."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from settings.version import VERSION
from tools.harness.server import ROOT
from tools.image import build
from tools.image.__main__ import main
from tools.image.build import LOCKS, NotBuilt, Source, find_backend, how_to_run, image_labels, image_tag, read_source


def test_the_tag_is_the_version() -> None:
    assert image_tag("cpu") == f"immich-bento:{VERSION}"
    assert image_tag("cuda") == f"immich-bento:{VERSION}-cuda"


def test_the_labels_tell_version_and_commit() -> None:
    labels = image_labels("cpu", Source("abc", 1))
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert labels["org.opencontainers.image.created"] == "1970-01-01T00:00:01+00:00"


def test_the_commit_is_that_of_this_tree() -> None:
    source = read_source()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", source.revision)
    assert (source.seconds > 10**9) == (source.revision != "unknown")


@pytest.mark.parametrize("variant", LOCKS)
def test_a_variant_differs_by_its_lock_alone(variant: str) -> None:
    plain = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    with build._bentofile(variant) as path:  # type: ignore[arg-type]
        made = yaml.safe_load(Path(path).read_text())
    assert (ROOT / made["python"]["requirements_txt"]).is_file()
    made["python"]["requirements_txt"] = plain["python"]["requirements_txt"]
    assert made == plain


def test_without_a_program_that_builds_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NotBuilt):
        find_backend()
    assert main([]) == 1
    assert "apt install podman" in capsys.readouterr().err


def test_a_docker_whose_daemon_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, podman = tmp_path / "docker", tmp_path / "podman"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(NotBuilt, match="docker is installed and does not answer: Cannot connect to the Docker daemon"):
        find_backend()
    podman.write_text("#!/bin/sh\n")
    podman.chmod(0o755)
    assert find_backend() == "podman"


def test_bentoml_is_told_the_tag_the_format_and_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    dated: list[Path] = []
    monkeypatch.setattr(build, "_run", lambda arguments, environment, folder: calls.append([*arguments, str(folder)]))
    monkeypatch.setattr(build, "date_bento", lambda folder, source: dated.append(folder))
    assert build.build("cpu", "podman", extra=["--opt", "network=host"]) == f"immich-bento:{VERSION}"
    bento, image = calls
    assert bento[0] == "build"
    assert image[:2] == ["containerize", f"immich-bento:{VERSION}"]
    assert image[-1] == "/", "BentoML refuses the template outside of the working directory"
    assert "--opt=format=docker" in image
    assert f"--opt=timestamp={build.LAYER_DATE}" in image
    assert image[-3:-1] == ["--opt", "network=host"]
    assert f"--opt=label=org.opencontainers.image.version={VERSION}" in image
    assert [folder.parts[-3:] for folder in dated] == [("bentos", "immich-bento", VERSION)]


def test_a_bento_has_the_date_of_its_commit(tmp_path: Path) -> None:
    facts = tmp_path / "bento.yaml"
    facts.write_text("version: 1\ncreation_time: '2026-11-27T18:35:42.868056+00:00'\nlabels: {}\n")
    build.date_bento(tmp_path, Source("abc", 86_400))
    assert facts.read_text() == "version: 1\ncreation_time: '1970-01-02T00:00:00+00:00'\nlabels: {}\n"
    facts.write_text("version: 1\n")
    with pytest.raises(NotBuilt, match="0 lines creation_time"):
        build.date_bento(tmp_path, Source("abc", 1))


@pytest.mark.parametrize(
    ("backend", "program"),
    [("podman", "podman"), ("buildah", "podman"), ("docker", "docker"), ("buildx", "docker")],
)
def test_the_last_words_are_true(backend: str, program: str) -> None:
    said = how_to_run("immich-bento:1", backend)
    assert f"{program} run -d -p 3003:3003 -v immich-models:/cache" in said
    assert "3000" not in said


def test_bentomls_own_last_words_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "built\\nTo run your newly built Bento container, run:\\n    docker run --rm -p 3000:3000 x\\n"
    popen = subprocess.Popen
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: popen(["printf", words], **options))
    build._run(["containerize"], {}, Path("/"))
    assert capsys.readouterr().err == "built\n"
