"""The benchmark of the container, where there is none to run; tests/image/test_benchmark.py runs it."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from tools.bench import container
from tools.bench.__main__ import main, parser
from tools.bench.figures import Figures

ROUND = Figures(10, 1, 1, 1, 40, 0, 1, 1, 1, 1)


def options(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(["container", *arguments])


def test_without_podman_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt install podman"):
        main(["container"])


def test_both_have_the_same_settings_and_the_container_its_own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"CLIP_MODEL": "ViT-B-16", "CLIP_DOWNLOAD_ROOT": "/home/me/clip"}
    monkeypatch.setattr("tools.bench.contenders.our_settings", lambda given: settings)
    run = list(container.container(options("--image", "x")).options)
    assert "CLIP_MODEL=ViT-B-16" in run
    assert "CLIP_DOWNLOAD_ROOT=/clip" in run
    assert "/home/me/clip:/clip:ro" in run
    assert f"{container.VOLUME}:/cache" in run
    assert "OFFLINE=true" in run


@pytest.mark.parametrize(("per_second", "met"), [(9.8, True), (9.6, False)])
def test_the_container_is_held_to_its_target(per_second: float, met: bool) -> None:
    found = container.verdicts({("clip", "4"): {"ours": [replace(ROUND, per_second=per_second)], "peer": [ROUND]}})
    assert [(one.what, one.met) for one in found] == [("clip, 4 callers: container / without", met)]
