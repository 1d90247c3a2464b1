"""A CN-CLIP model is fetched as a checkpoint from the hub that answers, converted once, and checked ever after."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from errors import ModelUnavailable
from models import checkpoint as checkpoint_module
from models.catalog import ModelEntry, ModelKind
from models.convert import convert, installed_vocabulary
from models.places import cache_folder
from models.progress import Progress, on_its_way
from models.pull import pull
from models.resolve import resolve
from models.transfer import host_of
from settings import Settings
from tests.models.conftest import QUICK, write_files
from tests.models.small_clip import (
    FILE,
    HUGGINGFACE,
    HUGGINGFACE_FILE,
    MODELSCOPE_FILE,
    NAME,
    FakeConversion,
    MakeSettings,
    SmallClip,
    entry,
    on_both_hubs,
    small,
)
from tools.harness.fake_hub import Fault, Web

__all__ = ["entry", "small"]

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
VISUAL = {"visual/model.onnx", "visual/preprocess_cfg.json", "config.json"}


@pytest.fixture(scope="session")
def converted(small: SmallClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model that is made of the checkpoint."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(small.checkpoint, folder, vocabulary=installed_vocabulary())
    return folder


@pytest.fixture
def conversion(converted: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConversion:
    """Replace the conversion, which takes seconds."""
    fake = FakeConversion(converted)
    monkeypatch.setattr(checkpoint_module, "run_conversion", fake)
    return fake


@pytest.fixture
def settings(web: Web, small: SmallClip, make_settings: MakeSettings) -> Settings:
    """Return settings under which both hubs have the checkpoint, and Hugging Face's is asked first."""
    return make_settings(**on_both_hubs(web, small.data), model_hub="huggingface")


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a model's folder holds, but for records and locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_a_model_is_fetched_converted_and_later_checked_without_network(
    web: Web, entry: ModelEntry, settings: Settings, converted: Path, digests: list[str]
) -> None:
    found = resolve(entry, settings, "visual", limits=QUICK)
    folder = cache_folder(entry, settings)
    assert set(found) == VISUAL
    assert contents(folder) == contents(converted)
    assert not list(folder.rglob("*.pt"))
    assert not (folder / ".checkpoint").exists()
    asked = len(web.asked)
    offline = settings.model_copy(update={"offline": True})
    assert set(resolve(entry, offline)) > VISUAL
    assert len(web.asked) == asked
    (folder / "textual/model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelUnavailable, match="wrong bytes"):
        resolve(entry, offline, "textual")
    assert set(resolve(entry, offline, "visual")) == VISUAL


def test_a_model_that_was_damaged_is_made_anew_of_the_same_checkpoint(
    web: Web, entry: ModelEntry, settings: Settings, converted: Path, conversion: FakeConversion
) -> None:
    path = resolve(entry, settings, limits=QUICK)["textual/model.onnx"]
    path.write_bytes(b"damaged")
    assert (
        resolve(entry, settings, limits=QUICK)["textual/model.onnx"].read_bytes()
        == contents(converted)["textual/model.onnx"]
    )
    assert len(conversion.digests) == 2
    assert len(set(conversion.digests)) == 1


def test_a_checkpoint_that_is_another_than_the_one_fetched_before_is_not_taken(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion
) -> None:
    path = resolve(entry, settings, limits=QUICK)["textual/model.onnx"]
    path.write_bytes(b"damaged")
    on_both_hubs(web, b"of somebody else")
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    assert f"{FILE} is another file there now" in str(caught.value)
    assert f"`python -m models rm {NAME}` forgets that one" in str(caught.value)
    assert len(conversion.digests) == 1


def test_the_checkpoint_is_kept_if_that_is_set_and_used_again(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, small: SmallClip
) -> None:
    keeping = settings.model_copy(update={"keep_checkpoints": True})
    path = resolve(entry, keeping, limits=QUICK)["config.json"]
    assert (cache_folder(entry, settings) / ".checkpoint" / FILE).read_bytes() == small.data
    path.unlink()
    resolve(entry, keeping, limits=QUICK)
    assert len(web.gets(HUGGINGFACE_FILE)) == 1
    assert len(conversion.digests) == 2


# --- which hub ---


@pytest.mark.parametrize(("hub", "asked"), [("huggingface", HUGGINGFACE_FILE), ("modelscope", MODELSCOPE_FILE)])
def test_the_hub_that_is_set_is_asked_and_no_other(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, hub: str, asked: str
) -> None:
    resolve(entry, settings.model_copy(update={"model_hub": hub}), limits=QUICK)
    assert {path for path, _ in web.asked if path.endswith(".pt")} == {asked}


@pytest.mark.parametrize(("slow", "fast"), [(HUGGINGFACE_FILE, MODELSCOPE_FILE), (MODELSCOPE_FILE, HUGGINGFACE_FILE)])
def test_the_hub_whose_first_bytes_come_first_is_asked_for_the_file(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, slow: str, fast: str
) -> None:
    web.faults[slow] = [Fault(delay=0.8)]
    resolve(entry, settings.model_copy(update={"model_hub": "auto"}), limits=QUICK)
    assert web.gets(fast) == ["bytes=0-65535", None]
    assert web.gets(slow) == ["bytes=0-65535"]


def test_a_hub_that_fails_is_followed_by_the_other_which_goes_on_with_its_bytes(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion
) -> None:
    web.faults[HUGGINGFACE_FILE] = [Fault(cut_after=1_000_000), *[Fault(status=503)] * 9]
    resolve(entry, settings, limits=QUICK)
    assert web.gets(MODELSCOPE_FILE) == ["bytes=1000000-"]


def test_wrong_bytes_are_thrown_away_and_the_other_hub_is_asked(
    web: Web,
    entry: ModelEntry,
    settings: Settings,
    conversion: FakeConversion,
    small: SmallClip,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = settings.modelscope_endpoint.replace("127.0.0.1", "localhost")
    settings = settings.model_copy(update={"modelscope_endpoint": elsewhere})
    web.faults[HUGGINGFACE_FILE] = [Fault(body=bytes(len(small.data)))]
    resolve(entry, settings, limits=QUICK)
    assert web.gets(MODELSCOPE_FILE) == [None]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{FILE} of {NAME}: {host_of(web.url)} sent {len(small.data):,} bytes whose digest is sha256:" in warning
    assert warning.endswith(f"What came is thrown away, and {host_of(settings.modelscope_endpoint)} is asked.")
    web.files[HUGGINGFACE_FILE] = web.files[MODELSCOPE_FILE] = bytes(len(small.data))
    shutil.rmtree(cache_folder(entry, settings))
    with pytest.raises(ModelUnavailable, match="bytes whose digest is sha256:"):
        resolve(entry, settings, limits=QUICK)
    assert not list(cache_folder(entry, settings).rglob("*.p*"))


@pytest.mark.parametrize(
    "listing", [b"{}", b'{"Data": {"Files": [{"Path": "x"}]}}', b"<html>", b'{"Data": {"Files": []}}']
)
def test_a_hub_that_does_not_say_what_the_file_is_is_not_trusted(
    web: Web, entry: ModelEntry, settings: Settings, listing: bytes
) -> None:
    web.files["/ms/api/v1/models/AI-ModelScope/small/repo/files"] = listing
    del web.files[f"/api/models/{HUGGINGFACE}/revision/main"]
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    assert f"{web.url}{MODELSCOPE_FILE}" in str(caught.value)
    assert f"{web.url}{HUGGINGFACE_FILE}" in str(caught.value)
    assert "set HF_ENDPOINT or MODELSCOPE_ENDPOINT to a mirror" in str(caught.value)
    assert not web.gets(MODELSCOPE_FILE)


def test_a_connection_that_is_cut_again_and_again_is_gone_on_with(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, small: SmallClip
) -> None:
    step = len(small.data) // 5
    web.faults[HUGGINGFACE_FILE] = [Fault(cut_after=step)] * 4
    resolve(entry, settings, limits=QUICK)
    assert web.gets(HUGGINGFACE_FILE) == [None, *(f"bytes={step * times}-" for times in range(1, 5))]
    assert len(conversion.digests) == 1


def test_without_the_package_that_has_it_the_vocabulary_comes_from_the_hub(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/OFA-Sys/chinese-clip-vit-base-patch16/resolve/main/vocab.txt"] = installed_vocabulary().read_bytes()
    monkeypatch.setattr("models.places.package_folder", lambda package: None)
    resolve(entry, settings, limits=QUICK)
    assert len(conversion.digests) == 1


# --- what is in the way ---


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    web: Web, entry: ModelEntry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("models.capacity.shutil.disk_usage", lambda path: usage(10**9, 0, 2_000_000))
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    assert "small-clip (" in str(caught.value)
    assert "2 MB are free" in str(caught.value)
    assert "are missing" in str(caught.value)
    assert not web.gets(HUGGINGFACE_FILE)


def test_too_little_memory_is_said_before_anything_is_fetched(
    web: Web, entry: ModelEntry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.capacity.usable_memory", lambda: 256 * 10**6)
    with pytest.raises(
        ModelUnavailable, match=r"needs at least 4\d\d MB of memory; this machine or container has 256 MB"
    ):
        resolve(entry, settings, limits=QUICK)
    assert not web.gets(HUGGINGFACE_FILE)


def test_a_disk_that_becomes_full_is_said_and_a_restart_goes_on(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.faults[HUGGINGFACE_FILE] = [Fault(cut_after=100_000), *[Fault(status=503)] * 9]
    web.faults[MODELSCOPE_FILE] = [Fault(status=503)] * 9
    with pytest.raises(ModelUnavailable):
        resolve(entry, settings, limits=QUICK)
    web.faults.clear()
    (partial,) = cache_folder(entry, settings).rglob("*.partial")
    begun = partial.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("models.download.os.fsync", full)
        with pytest.raises(ModelUnavailable, match="the disk: is full"):
            resolve(entry, settings, limits=QUICK)
    partial.write_bytes(begun)
    resolve(entry, settings, limits=QUICK)
    assert web.gets(HUGGINGFACE_FILE)[-1] == "bytes=100000-"


def test_a_checkpoint_that_cannot_be_converted_is_refused_in_a_sentence(
    web: Web, entry: ModelEntry, make_settings: MakeSettings
) -> None:
    settings = make_settings(**on_both_hubs(web, b"no checkpoint at all" * 1000), model_hub="huggingface")
    with pytest.raises(ModelUnavailable, match=r"the checkpoint: .*clip_cn_small\.pt"):
        resolve(entry, settings, limits=QUICK)
    assert not contents(cache_folder(entry, settings))


def test_files_of_the_users_that_are_in_the_way_are_kept(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion
) -> None:
    write_files(cache_folder(entry, settings), ["visual/model.onnx"])
    found = resolve(entry, settings, limits=QUICK)
    assert found["visual/model.onnx"].with_name("model.onnx.rejected").read_text() == "visual/model.onnx"


# --- several at once, and killed ---


def test_eight_threads_fetch_and_convert_once(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion
) -> None:
    start = threading.Barrier(8)

    def want(number: int) -> set[str]:
        start.wait()
        return set(resolve(entry, settings, ("visual", "textual")[number % 2], limits=QUICK))

    with ThreadPoolExecutor(8) as threads:
        assert {len(files) for files in threads.map(want, range(8))} == {3, 4}
    assert len(web.gets(HUGGINGFACE_FILE)) == 1
    assert len(conversion.digests) == 1


PROCESS = """
import pathlib, signal, os, sys, json
from models.catalog import load_catalog, ModelKind
from models.resolve import resolve
from settings import Settings
order = json.loads(sys.argv[1])
settings = Settings(**order["settings"])
entry = load_catalog(pathlib.Path(order["catalog"])).find(ModelKind.CLIP, "small-clip")
if order["die"].startswith("rename"):
    renames, original = int(order["die"].partition(" ")[2]), os.replace
    def replace(source, target):
        global renames
        if "/.checkpoint/model/" in str(source) and not str(source).endswith(".tmp"):
            if renames == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            renames -= 1
        original(source, target)
    os.replace = replace
print(len(resolve(entry, settings)))
"""


def _process(tmp_path: Path, settings: Settings, die: str = "") -> subprocess.Popen[str]:
    """Return a process that resolves the model, and kills itself where it is told to."""
    order = {
        "catalog": str(tmp_path / "small.toml"),
        "die": die,
        "settings": {
            "cache_folder": str(settings.cache_folder),
            "hf_endpoint": settings.hf_endpoint,
            "modelscope_endpoint": settings.modelscope_endpoint,
            "model_hub": "huggingface",
        },
    }
    command = [sys.executable, "-c", PROCESS, json.dumps(order)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_on_one_folder_fetch_and_convert_once(
    web: Web, entry: ModelEntry, settings: Settings, tmp_path: Path, converted: Path
) -> None:
    processes = [_process(tmp_path, settings) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["6", "6"]
    assert web.gets(HUGGINGFACE_FILE) == [None]
    assert contents(cache_folder(entry, settings)) == contents(converted)


def test_a_process_killed_during_the_download_is_shown_no_more_and_the_next_goes_on(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, tmp_path: Path
) -> None:
    web.faults[HUGGINGFACE_FILE] = [Fault(stall_after=2_000_000)]
    process = _process(tmp_path, settings)
    progress = _wait(lambda: _at_bytes(entry, settings, 1_000_000))
    assert (progress.task, progress.name, progress.state, progress.step) == (ModelKind.CLIP, NAME, "downloading", FILE)
    assert progress.total == len(web.files[HUGGINGFACE_FILE])
    process.kill()
    process.communicate()
    assert (settings.cache_folder / ".progress" / f"clip--{NAME}.json").exists()
    assert on_its_way(ModelKind.CLIP, NAME, settings) is None
    resolve(entry, settings, limits=QUICK)
    assert web.gets(HUGGINGFACE_FILE)[-1] not in (None, "bytes=0-")
    assert not list((settings.cache_folder / ".progress").glob("*.json"))


def _at_bytes(entry: ModelEntry, settings: Settings, least: int) -> Progress | None:
    progress = on_its_way(entry.task, entry.name, settings)
    return progress if progress is not None and progress.bytes >= least else None


def _wait(condition: Callable[[], T | None]) -> T:
    """Return what ``condition`` gives as soon as it gives anything; within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_a_process_killed_during_the_conversion_takes_the_conversion_with_it(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, converted: Path, tmp_path: Path
) -> None:
    process = _process(tmp_path, settings)
    child = _wait(lambda: next(iter(psutil.Process(process.pid).children()), None))
    process.kill()
    process.communicate(timeout=60)
    child.wait(timeout=60)  # raises where it still runs
    folder = cache_folder(entry, settings)
    assert not contents(folder)
    resolve(entry, settings, limits=QUICK)
    assert contents(folder) == contents(converted)
    assert len(conversion.digests) == 1
    assert web.gets(HUGGINGFACE_FILE) == [None]  # the checkpoint was there


@pytest.mark.parametrize(
    "renames", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_process_killed_while_files_get_their_names_is_gone_on_with(
    web: Web,
    entry: ModelEntry,
    settings: Settings,
    conversion: FakeConversion,
    converted: Path,
    tmp_path: Path,
    renames: int,
) -> None:
    process = _process(tmp_path, settings, die=f"rename {renames}")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ModelUnavailable):
        resolve(entry, settings.model_copy(update={"offline": True}))
    resolve(entry, settings, limits=QUICK)
    assert contents(cache_folder(entry, settings)) == contents(converted)
    assert conversion.digests == []
    assert web.gets(HUGGINGFACE_FILE) == [None]


# --- pull ---


def test_a_pulled_model_is_converted_into_the_store(
    web: Web, entry: ModelEntry, settings: Settings, conversion: FakeConversion, converted: Path
) -> None:
    pulled = pull(entry, settings, limits=QUICK)
    assert pulled.how == "stored"
    assert contents(pulled.folder).keys() == {*contents(converted), "model.yaml"}
    assert f"source: {HUGGINGFACE}@" in (pulled.folder / "model.yaml").read_text()
    assert not contents(cache_folder(entry, settings))


def test_a_checkpoint_that_was_carried_here_is_converted_without_network(
    entry: ModelEntry, make_settings: MakeSettings, conversion: FakeConversion, small: SmallClip, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    shutil.copy(small.checkpoint, tmp_path / "disk")
    pulled = pull(entry, make_settings(), carried=tmp_path / "disk")
    assert pulled.how == "stored"
    assert (tmp_path / "disk" / FILE).exists()
    assert set(resolve(entry, make_settings(offline=True), "visual")) == VISUAL
