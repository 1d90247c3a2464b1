"""Names that look like settings and are none: told with the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import Settings
from settings.variables import names_in_file, setting_names, warnings_of

KNOWN = list(setting_names(Settings))


def told(*names: str, in_file: tuple[str, ...] = ()) -> list[str]:
    return warnings_of(dict.fromkeys(names, "a secret"), in_file, KNOWN)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("IMMICH_LOGLEVEL", "IMMICH_LOG_LEVEL"),
        ("IMMICH_URI", "IMMICH_URL"),
        ("IMMICH_API_FACE", "IMMICH_API_FACES"),
        ("IMMICH_APIS", "IMMICH_API"),
        ("MACHINE_LEARNING_CACHE_DIR", "MACHINE_LEARNING_CACHE_FOLDER"),
        ("MACHINE_LEARNING_PRELOAD__CLIP__VISUALS", "MACHINE_LEARNING_PRELOAD__CLIP__VISUAL"),
        ("search_enable", "SEARCH_ENABLED"),
        ("ROUTE_FACE", "ROUTE_FACES"),
        ("UPSTREAM_TIME_OUT", "UPSTREAM_TIMEOUT"),
        ("CLIP_MODL", "CLIP_MODEL"),
        ("CLIP_MODELS", "CLIP_MODEL"),
        ("RECOGNITON_MODEL", "RECOGNITION_MODEL"),
        ("OCR_MODELS", "OCR_MODEL"),
        ("API_AUTHKEY", "API_AUTH_KEY"),
        ("HTTP_PRT", "HTTP_PORT"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("http_ports", "HTTP_PORT"),
    ],
)
def test_a_misspelt_name_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert told(name) == [f"{name} is not a setting; did you mean {meant}?"]


def test_a_name_of_ours_like_no_other_is_told() -> None:
    (sentence,) = told("SEARCH_XYZZY")
    assert sentence.startswith("SEARCH_XYZZY is not a setting")
    assert "docs/settings.md" in sentence


def test_what_only_immichs_own_server_reads_is_told_as_such() -> None:
    assert told("MACHINE_LEARNING_ANN") == [
        "MACHINE_LEARNING_ANN is a setting of Immich's own server; it does nothing here."
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("IMMICH_VERSION", "IMMICH_ENV", "IMMICH_MEDIA_LOCATION", "IMMICH_TRUSTED_PROXIES", "IMMICH_CONFIG_FILE"),
        *("IMMICH_API_METRICS_PORT", "IMMICH_MICROSERVICES_METRICS_PORT", "IMMICH_WORKERS_INCLUDE", "IMMICH_BUILD"),
        *("PATH", "HOST", "PORT", "DEVICES", "HF_HOME", "HF_TOKEN", "LOG_LEVEL"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HTTPS_PORT", "DATABASE_USER", "TEST_DATABASE_URL", "HF_ENDPOINTS"),
        *KNOWN,
    ],
)
def test_names_of_others_and_settings_are_not_told(name: str) -> None:
    assert told(name) == []
    assert told(name.lower()) == []


def test_in_the_file_a_misspelt_name_without_our_prefixes_is_told_too() -> None:
    assert told(in_file=("CLIP_MODELS", "DB_PASSWORD", "UPLOAD_LOCATION", "TZ", "CLIP_MODEL")) == [
        "CLIP_MODELS is not a setting; did you mean CLIP_MODEL?"
    ]


def test_names_are_read_from_a_file_without_their_values(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# A_COMMENT=1\nONE=1\n export TWO = 'x=y'\nnot a line\n\nTHREE=\n", "utf-8")
    assert names_in_file(file) == ["ONE", "TWO", "THREE"]
    assert names_in_file(tmp_path / "missing") == []
    file.write_bytes(b"\xff\xfe=1")
    assert names_in_file(file) == []
