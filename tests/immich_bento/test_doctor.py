"""``immich-bento doctor``: each check says what is wrong and what to do, and no report holds a secret."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from errors import ModelUnavailable
from immich_bento.doctor import machine
from immich_bento.doctor.answers import check_answers
from immich_bento.doctor.command import main
from immich_bento.doctor.database import check_database
from immich_bento.doctor.finding import Finding, Level
from immich_bento.doctor.immich import check_immich
from immich_bento.doctor.proxy import check_proxy
from immich_bento.doctor.weights import check_weights
from models.catalog import ModelKind, load_catalog
from models.progress import note_retry
from models.resolve import resolve
from search.store.database import embedded_folder
from settings import Settings
from tests.models.conftest import QUICK

SECRET = "a-secret-nobody-may-read"
CATALOG = load_catalog(None)


class Fake(ThreadingHTTPServer):
    """A server that gives fixed answers: ``"GET /path"`` to a status and a body, and headers to all."""

    def __init__(self, answers: dict[str, tuple[int, Any]], headers: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.headers = answers, headers or {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Fake:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        assert isinstance(self.server, Fake)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, content = self.server.answers.get(f"{self.command} {self.path}", (404, ""))
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**self.server.headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


def levels(findings: Iterator[Finding]) -> dict[str, Level]:
    return {finding.subject: finding.level for finding in findings}


def of(findings: Iterator[Finding], subject: str) -> Finding:
    return next(finding for finding in findings if finding.subject == subject)


def test_the_report_is_lines_or_json_and_its_exit_code_says_whether_something_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_AUTH_KEY", SECRET)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody:{SECRET}@127.0.0.1:9/none")
    arguments = ["--url", "http://127.0.0.1:9", "--json"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    findings = json.loads(said)
    assert {"version", "memory", "service", "database"} <= {finding["subject"] for finding in findings}
    assert all(finding["todo"] for finding in findings if finding["level"] in ("wrong", "warning"))
    assert SECRET not in said
    assert main(arguments[:2]) == 1
    lines = capsys.readouterr().out
    assert "[WRONG ] service: nothing answers at http://127.0.0.1:9" in lines
    assert SECRET not in lines


def test_settings_that_are_wrong_end_it_with_their_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_BATCH", "none")
    assert main([]) == 1
    assert "MAX_BATCH" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gigabytes", "level"), [(0.5, Level.WRONG), (0.8, Level.WARNING), (1.0, Level.WARNING), (4.0, Level.GOOD)]
)
def test_memory_is_told_before_it_runs_out(gigabytes: float, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: int(gigabytes * 10**9))
    assert of(machine.check_machine(Settings(device="cpu", engine="onnxruntime")), "memory").level is level


@pytest.mark.parametrize(
    ("clip", "bf16", "gibibytes"),
    [("tiny", True, 1), ("ViT-B-16", True, 1.25), ("ViT-B-16", False, 1.5), ("ViT-L-14", True, 2)],
)
def test_the_memory_that_is_needed_is_that_of_the_clip_model(
    clip: str, bf16: bool, gibibytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda: bf16)
    for usable, level in ((gibibytes * 2**30, Level.GOOD), (gibibytes * 2**30 - 1, Level.WARNING)):
        monkeypatch.setattr(machine, "usable_memory", lambda usable=usable: int(usable))
        found = of(machine.check_machine(Settings(device="cpu", engine="onnxruntime", clip_model=clip)), "memory")
        assert found.level is level


def test_a_device_that_cannot_be_used_is_told() -> None:
    finding = of(machine.check_machine(Settings(device="cuda")), "engine")
    assert finding.level is Level.WRONG
    assert "DEVICE" in finding.todo


def test_models_that_settings_name_are_read_byte_by_byte(tmp_path: Any) -> None:
    config = Settings(
        clip_model="tiny", ocr_model="PP-OCRv6_small", recognition_model="buffalo_s", cache_folder=tmp_path
    )
    assert levels(check_weights(CATALOG, config)) == {
        "model cn-clip-tiny": Level.GOOD,
        "model buffalo_s": Level.GOOD,
        "model PP-OCRv6_small": Level.GOOD,
    }


def test_a_model_that_is_not_here_is_told_with_the_command(tmp_path: Any) -> None:
    finding = of(check_weights(CATALOG, Settings(clip_model="ViT-L-14", cache_folder=tmp_path)), "model ViT-L-14")
    assert finding.level is Level.WRONG
    assert "python -m models pull ViT-L-14" in finding.todo


@pytest.mark.parametrize(
    ("offline", "in_vain", "todo"),
    [
        (False, False, "Wait for it, or run `python -m models pull ViT-L-14`."),
        (
            False,
            True,
            "Set HF_ENDPOINT (now http://127.0.0.1:9) or MODELSCOPE_ENDPOINT (now http://127.0.0.1:8) to a mirror that "
            "can be reached, or run `python -m models pull ViT-L-14 --from DIR`.",
        ),
        (True, True, "Unset OFFLINE, or run `python -m models pull ViT-L-14 --from DIR`."),
    ],
)
def test_the_advice_for_a_model_that_no_hub_gives_names_the_hubs_and_their_settings(
    tmp_path: Path, offline: bool, in_vain: bool, todo: str
) -> None:
    config = Settings(
        clip_model="ViT-L-14",
        cache_folder=tmp_path,
        hf_endpoint="http://127.0.0.1:9",
        modelscope_endpoint="http://user:secret@127.0.0.1:8",
    )
    entry = CATALOG.find(ModelKind.CLIP, "ViT-L-14")
    if in_vain:
        with pytest.raises(ModelUnavailable):
            resolve(entry, config, limits=QUICK)
        note_retry(entry.task, entry.name, config, time.time() + 60)
    config = config.model_copy(update={"offline": offline})
    assert of(check_weights(CATALOG, config), "model ViT-L-14").todo == todo


@pytest.mark.parametrize("local", [True, False])
def test_a_model_that_is_not_here_is_told_of_once_and_an_answer_is_no_raw_json(tmp_path: Path, local: bool) -> None:
    said = "The clip model ViT-L-14 cannot be had now: no connection."
    answers: dict[str, tuple[int, Any]] = {"GET /ping": (200, "pong"), "GET /readyz": (503, "")}
    answers["POST /predict"] = (503, {"detail": said, "code": "model_unavailable"})
    with Fake(answers) as fake:
        config = Settings(clip_model="ViT-L-14", cache_folder=tmp_path, http_port=fake.server_address[1])
        found = check_answers(CATALOG, config, None if local else fake.url, 10)
        finding = of(found, "task clip.visual")
    assert finding.detail == ("ViT-L-14 is not here" if local else f"ViT-L-14: 503: {said}")
    assert (finding.todo == "See `model ViT-L-14` above.") is local


def test_each_task_is_asked_and_an_error_is_shown_as_it_came(tmp_path: Any) -> None:
    config = Settings(clip_model="tiny", ocr_model="PP-OCRv6_small", cache_folder=tmp_path)
    answers: dict[str, tuple[int, Any]] = {"GET /ping": (200, "pong"), "GET /readyz": (503, "")}
    with Fake({**answers, "POST /predict": (503, {"detail": "no room", "code": "queue_full"})}) as fake:
        found = list(check_answers(CATALOG, config, fake.url, 10))
    assert {finding.subject: finding.level for finding in found} == {
        "service": Level.GOOD,
        "ready": Level.WRONG,
        **{f"task {label}": Level.WRONG for label in ("clip.visual", "facial-recognition", "ocr", "clip.textual")},
    }
    assert "503" in found[-1].detail
    assert "no room" in found[-1].detail


@pytest.mark.parametrize("named", [True, False])
def test_behind_a_key_in_the_path_the_service_is_found_and_the_key_is_not_told(named: bool) -> None:
    with Fake({f"GET /{SECRET}/ping": (200, "pong"), "GET /readyz": (200, "")}) as fake:
        config = Settings(url_key=SecretStr(SECRET), http_port=fake.server_address[1])
        found = list(check_answers(CATALOG, config, f"{fake.url}/{SECRET}" if named else None, 10))
    assert found[0].level is Level.GOOD
    assert SECRET not in str([finding.as_dict() for finding in found])


def test_another_server_at_the_address_is_told() -> None:
    with Fake({"GET /ping": (200, "hello")}) as fake:
        (finding,) = check_answers(CATALOG, Settings(), fake.url, 10)
    assert "another server" in finding.detail


IMMICH: dict[str, tuple[int, Any]] = {
    "GET /api/server/version": (200, {"major": 3, "minor": 1, "patch": 0}),
    "GET /api/users/me": (200, {"isAdmin": True}),
    "GET /api/system-config": (
        200,
        {
            "machineLearning": {
                "enabled": True,
                "urls": [f"http://user:{SECRET}@immich-machine-learning:3003", f"http://immich-bento:3003/{SECRET}/"],
                "clip": {"enabled": True, "modelName": "ViT-B-32__openai"},
                "facialRecognition": {"enabled": False, "modelName": "buffalo_l"},
                "ocr": {"enabled": True, "modelName": "PP-OCRv5_mobile"},
            }
        },
    ),
}


def immich_set_to(image: dict[str, Any] | None = None, **parts: Any) -> dict[str, tuple[int, Any]]:
    """Return what an Immich answers in which these parts of machine learning are set to something else."""
    stored = IMMICH["GET /api/system-config"][1]["machineLearning"]
    changed = {name: {**stored[name], **part} if isinstance(part, dict) else part for name, part in parts.items()}
    config = {"machineLearning": {**stored, **changed}, **({"image": image} if image else {})}
    return {**IMMICH, "GET /api/system-config": (200, config)}


def test_immichs_models_are_held_against_ours() -> None:
    with Fake(IMMICH) as fake:
        key = SecretStr(SECRET)
        fitting, another = (
            list(check_immich(CATALOG, Settings(immich_url=fake.url, immich_api_key=key, url_key=key, clip_model=name)))
            for name in ("tiny", "ViT-L-14")
        )
    assert {finding.subject: finding.level for finding in fitting} == {
        "Immich": Level.GOOD,
        "Immich's key": Level.GOOD,
        "Immich's machine learning": Level.GOOD,
        "Immich's smart search": Level.GOOD,
        "Immich's faces": Level.WARNING,
        "Immich's OCR": Level.GOOD,
    }
    assert "512 numbers" in next(one.detail for one in fitting if one.subject == "Immich's smart search")
    misfit = next(finding for finding in another if finding.subject == "Immich's smart search")
    assert misfit.level is Level.WRONG
    assert "512" in misfit.detail
    assert SECRET not in str([finding.as_dict() for finding in (*fitting, *another)])


@pytest.mark.parametrize(
    ("side", "preview", "level", "said"),
    [
        (736, 1440, Level.GOOD, "at 736 pixels on the short side, boxes from a score of 0.5 and lines from 0.8"),
        (1440, 1440, Level.GOOD, "at 1,440 pixels"),
        (2000, 1440, Level.WARNING, "at 2,000 pixels, but 1,440 is the short side of the previews"),
        (20_000, None, Level.WARNING, "at 20,000 pixels, but 10,000 is the most that is done here"),
    ],
)
def test_immichs_limits_are_held_against_what_is_done_here(
    side: int, preview: int | None, level: Level, said: str
) -> None:
    image = {"preview": {"size": preview}} if preview else None
    ocr = {"maxResolution": side, "minDetectionScore": 0.5, "minRecognitionScore": 0.8}
    faces = {"enabled": True, "minScore": 0.7}
    with Fake(immich_set_to(image, ocr=ocr, facialRecognition=faces)) as fake:
        config = Settings(immich_url=fake.url, immich_api_key=SecretStr(SECRET), recognition_model="buffalo_s")
        found = {finding.subject: finding for finding in check_immich(CATALOG, config)}
    limits = found["Immich's limits of OCR"]
    assert (limits.level, said in limits.detail) == (level, True)
    assert "0.7; DETECTION_THRESH=0.65" in found["Immich's limits of faces"].detail


def test_a_url_whose_key_immich_leaves_out_is_told_without_the_key() -> None:
    key = SecretStr(SECRET)
    with Fake(immich_set_to(urls=[f"http://immich-bento:3003/{SECRET}"])) as fake:
        found = list(check_immich(CATALOG, Settings(immich_url=fake.url, immich_api_key=key, url_key=key)))
    (slash,) = [finding for finding in found if finding.level is Level.WRONG]
    assert "no slash after it" in slash.detail
    assert SECRET not in str([finding.as_dict() for finding in found])


def test_an_immich_that_is_none_is_told() -> None:
    with Fake({}) as fake:
        found = levels(check_immich(CATALOG, Settings(immich_url=fake.url)))
    assert found["Immich"] is Level.WRONG
    assert levels(check_immich(CATALOG, Settings(immich_url="http://127.0.0.1:9")))["Immich"] is Level.WRONG


def test_the_proxys_locations_are_known_by_who_answers() -> None:
    with Fake({}, headers={"x-request-id": "1"}) as ours, Fake({}) as immichs:
        assert set(levels(check_proxy(ours.url)).values()) == {Level.GOOD}
        assert set(levels(check_proxy(immichs.url)).values()) == {Level.WRONG}
    assert [finding.level for finding in check_proxy(None)] == [Level.SKIPPED]


def test_folders_that_are_not_there_yet_are_looked_at(tmp_path: Path) -> None:
    config = Settings(cache_folder=tmp_path / "a/b", search_folder=tmp_path / "c/d")
    findings = list(machine._folders(config))
    assert [finding.level for finding in findings] == [Level.GOOD, Level.GOOD]
    assert not list(tmp_path.iterdir())


def test_roots_default_folder_of_search_is_the_one_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    config = Settings(_env_file=None, search_enabled=True, api_auth_key=SecretStr("key"))
    (folder,) = [one for one in check_database(config) if "its folder" in one.detail]
    assert f"its folder {embedded_folder(config)} " in folder.detail
    looked_at = [finding.detail for finding in machine._folders(config)]
    assert any(detail.startswith(f"{embedded_folder(config)} ") for detail in looked_at), looked_at
