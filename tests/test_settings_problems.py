"""What a person is told of settings that are wrong: the name in the environment, plain words, never the value."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from settings import Settings
from settings.problems import settings_that_name, what_is_wrong


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("HTTP_PORT", "hunter2", "must be a whole number."),
        ("MAX_BATCH", "1.5", "must be a whole number."),
        ("MAX_BATCH", "0", "must be 1 or more."),
        ("IMMICH_PORT", "65536", "must be 65535 or less."),
        ("REQUEST_TIMEOUT", "hunter2", "must be a number."),
        ("REQUEST_TIMEOUT", "0", "must be more than 0."),
        ("OFFLINE", "hunter2", "must be true or false."),
        ("DEVICE", "hunter2", "must be one of auto, cpu, cuda, openvino."),
        ("LOG_FORMAT", "hunter2", "must be one of text, json."),
        ("IMMICH_HOST", "hunter2", "must be an IP address; 0.0.0.0 listens on all addresses of this machine."),
        (
            "TRUSTED_PROXIES",
            "hunter2",
            "must be addresses or networks, such as 10.0.0.1 or 172.16.0.0/12 (no bits set after the mask).",
        ),
        (
            "IMMICH_API",
            "http://me:hunter2",
            "an address must read like http://gpu-box:3003, with a port from 0 to 65535.",
        ),
        ("DATABASE_URL", "me:hunter2@host", "must read like postgresql://user:password@host:5432/database."),
        ("UPSTREAM_HEADER", "hunter2", "it must read `Name: value`, in printable ASCII characters."),
        ("MACHINE_LEARNING_PRELOAD", "hunter2", "is a group: set the names below it (docs/settings.md)."),
        ("MACHINE_LEARNING_PRELOAD__CLIP", "hunter2", "is a group: set the names below it (docs/settings.md)."),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises((ValidationError, SettingsError)) as caught:
        Settings(_env_file=None)
    assert isinstance(caught.value, ValidationError | SettingsError)
    told = what_is_wrong(caught.value)
    named = "MACHINE_LEARNING_PRELOAD" if "PRELOAD" in variable else variable
    assert told.splitlines()[1:] == [f"  {named}: {sentence}"]
    assert "hunter2" not in told


def test_the_settings_that_name_a_model_are_found_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_MODEL", "auto")  # as DEVICE and others are
    monkeypatch.setenv("MACHINE_LEARNING_PRELOAD__CLIP__VISUAL", "other, auto")
    config = Settings(_env_file=None)
    assert sorted(settings_that_name("auto", config)) == ["CLIP_MODEL", "MACHINE_LEARNING_PRELOAD__CLIP__VISUAL"]
