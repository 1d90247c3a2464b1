"""What lies in deploy/kubernetes, read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.harness.server import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")


def documents(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def kustomizations() -> Mapping[str, dict[str, Any]]:
    return {
        path.parent.relative_to(FOLDER).as_posix(): yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in FOLDER.rglob("kustomization.yaml")
    }


MANIFESTS = {f"{one['kind']}/{one['metadata']['name']}": one for one in documents(*FILES)}
"""By kind and name: ``Service/immich-bento-ocr``."""
DEPLOYMENTS = {name: one for name, one in MANIFESTS.items() if one["kind"] == "Deployment"}


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DEPLOYMENTS[name]["spec"]["template"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["spec"]["containers"]
    return dict(found)


def environment(name: str) -> dict[str, Any]:
    """Return what is set for a pod: values, or where they come from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(name)["env"]}


def of_file(name: str) -> dict[str, str]:
    lines = (FOLDER / "base" / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


CONFIG_MAPS = {"immich-bento": of_file("settings.env"), "immich-bento-models": of_file("models.env")}
