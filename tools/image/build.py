"""The container image, built of a Bento by ``bentoml containerize``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import yaml

from settings.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
NAME = "immich-bento"
BACKENDS = ("docker", "podman", "buildah")
"""Programs that build images, in the order in which they are looked for. Docker's ``buildx`` is taken by name alone."""
LOCKS = {"cpu": "requirements.lock", "cuda": "requirements-cuda.lock"}
"""Variant -> what it installs."""

LAYER_DATE = 1_767_225_600
"""Seconds since 1970 (the first of January 2026): the date of every file in the layers, the same in all versions.

So a layer whose files are the same has the same digest, wherever and whenever it was built, and an upgrade fetches only
those that changed.
"""

Variant = Literal["cpu", "cuda"]


class NotBuilt(Exception):
    """The image was not built; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """The commit that an image is built of."""

    revision: str
    """Its hash, ``-dirty`` behind it where files differ from it; ``unknown`` outside of a repository."""
    seconds: int
    """Time of the commit, in seconds since 1970."""

    @property
    def date(self) -> str:
        """Return the time of the commit by RFC 3339."""
        return datetime.fromtimestamp(self.seconds, timezone.utc).isoformat()


def image_tag(variant: Variant, name: str = NAME) -> str:
    """Return the image's name with its tag: the version, and the variant behind it."""
    return f"{name}:{VERSION}{'' if variant == 'cpu' else f'-{variant}'}"


def find_backend() -> str:
    """Return the first of ``BACKENDS`` that is installed and answers: docker needs a daemon. Raises ``NotBuilt``."""
    silent = []
    for name in BACKENDS:
        if shutil.which(name):
            asked = subprocess.run([name, "version"], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                return name
            silent.append(f" {name} is installed and does not answer: {asked.stderr.strip()}")
    install = f"Install one of {', '.join(BACKENDS)} (on Debian: apt install podman)."
    raise NotBuilt(f"Nothing here builds images. {install}{''.join(silent)}")


def read_source() -> Source:
    """Return the commit that this tree is of."""
    revision, seconds = _git("rev-parse", "HEAD"), _git("log", "-1", "--format=%ct")
    if revision is None or seconds is None:
        return Source("unknown", 0)
    return Source(revision + ("-dirty" if _git("status", "--porcelain") else ""), int(seconds))


def build(variant: Variant, backend: str, *, name: str = NAME, extra: Sequence[str] = ()) -> str:
    """Build the image ``name`` and return its tag. ``extra``: further options of ``bentoml containerize``.

    Raises ``NotBuilt``; the output of the programs goes to this process's own.
    """
    source, tag = read_source(), image_tag(variant, name)
    with tempfile.TemporaryDirectory(prefix="immich-bento-image-") as home:
        environment = {
            **os.environ,
            "BENTOML_HOME": home,
            "BENTOML_DO_NOT_TRACK": "True",
            "SOURCE_DATE_EPOCH": str(LAYER_DATE),
        }
        with _bentofile(variant) as bentofile:
            command = ["build", "--bentofile", bentofile, "--version", VERSION, "--output", "tag", str(ROOT)]
            _run(command, environment, ROOT)
        date_bento(Path(home, "bentos", NAME, VERSION), source)
        labels = [f"--opt=label={label}={value}" for label, value in image_labels(variant, source).items()]
        options = ["--backend", backend, "--image-tag", tag, *labels]
        if backend in ("podman", "buildah"):
            # The other format has no health check.
            options += ["--opt=format=docker", f"--opt=timestamp={LAYER_DATE}"]
        # BentoML 1.4.39 refuses a Dockerfile template outside of the working directory, and unpacks ours below /tmp.
        _run(["containerize", f"{NAME}:{VERSION}", *options, *extra], environment, Path("/"))
    return tag


def date_bento(folder: Path, source: Source) -> None:
    """Write the date of the commit in place of the time of the build into the Bento in ``folder``.

    It gets into the image, which would differ from build to build. Raises ``NotBuilt`` where there is no such line.
    """
    facts = folder / "bento.yaml"
    text, lines = re.subn(
        r"(?m)^creation_time: .*$", f"creation_time: '{source.date}'", facts.read_text(encoding="utf-8")
    )
    if lines != 1:
        raise NotBuilt(f"{facts} has {lines} lines creation_time in place of one: this BentoML writes it otherwise.")
    facts.write_text(text, encoding="utf-8")


def image_labels(variant: Variant, source: Source) -> dict[str, str]:
    """Return the labels of the image, by the names that the Open Container Initiative gives them."""
    return {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": image_tag(variant).partition(":")[2],
        "org.opencontainers.image.revision": source.revision,
        "org.opencontainers.image.created": source.date,
        "org.opencontainers.image.licenses": "MIT",
    }


def how_to_run(tag: str, backend: str) -> str:
    """Return what to type next."""
    program = {"buildah": "podman", "buildx": "docker"}.get(backend, backend)
    return f"Built {tag}. Run it:\n    {program} run -d -p 3003:3003 -v immich-models:/cache --restart always {tag}"


@contextmanager
def _bentofile(variant: Variant) -> Iterator[str]:
    """Yield the path of the project's ``bentofile.yaml`` with the lock of ``variant`` in it."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    content["python"]["requirements_txt"] = f"./{LOCKS[variant]}"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(content, file)
        file.flush()
        yield file.name


def _run(arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
    """Run BentoML, whose last words about port 3000 and no volume are left out: ``how_to_run`` says what is true."""
    command = [sys.executable, "-m", "bentoml", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "To run your newly built" not in line and "3000:3000" not in line:
                sys.stderr.write(line)
                sys.stderr.flush()
    if process.returncode != 0:
        raise NotBuilt(f"bentoml {arguments[0]} ended with {process.returncode}; its last lines say why.")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
