"""Each setting: its name in the environment, what it refuses, and its line in docs/settings.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from settings import Settings, names
from settings.problems import what_is_wrong
from settings.variables import variable_of

DOCUMENT = Path(__file__).parent.parent / "docs" / "settings.md"


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...], object]]:
    """Yield (environment name, path of fields, default) of every setting, nested ones too."""
    for name, field in model.model_fields.items():
        variable = prefix + variable_of(name, field)
        if isinstance(field.default, BaseModel):
            for inner, path, default in leaves(type(field.default), variable + "__"):
                yield inner, (name, *path), default
        else:
            yield variable, (name,), field.default


LEAVES = {variable: (path, default) for variable, path, default in leaves(Settings)}

OTHER_VALUES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(
        ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "IMMICH_URL"), ("http://elsewhere:80", "http://elsewhere:80")
    ),
    "IMMICH_HOST": ("127.0.0.1", "127.0.0.1"),
    "IMMICH_LOG_LEVEL": ("debug", "debug"),
    "MACHINE_LEARNING_DEVICE_IDS": ("1,2", "1,2"),
    "DEVICE": ("cpu", "cpu"),
    "ENGINE": ("openvino", "openvino"),
    "PRECISION": ("int8", "int8"),
    "DETECTION_THRESH": ("0.25", 0.25),
    "RUNNER_PROCESSES": ("split", "split"),
    "LOG_FORMAT": ("json", "json"),
    "MACHINE_LEARNING_MODEL_REVISION": ("v2", "v2"),
    "MODEL_HUB": ("modelscope", "modelscope"),
    "AUTH_REQUIRED": ("all", "all"),
    "TRUSTED_PROXIES": ("10.0.0.1, 172.16.0.0/12", "10.0.0.1, 172.16.0.0/12"),
    "IMMICH_API": ("http://gpu-box:3003", "http://gpu-box:3003"),
    **{f"IMMICH_API_{task}": ("dns://ocr:3003", "dns://ocr:3003") for task in ("CLIP", "FACES", "OCR")},
    "URL_KEY": ("correct-horse", SecretStr("correct-horse")),
    "UPSTREAM_HEADER": ("X-Key: secret", SecretStr("X-Key: secret")),
    "DATABASE_URL": ("postgresql://me@db/immich", SecretStr("postgresql://me@db/immich")),
    **{name: ("secret", SecretStr("secret")) for name in ("API_AUTH_KEY", "IMMICH_API_KEY", "IMMICH_API_KEYS")},
    "SEARCH_SOURCE": ("immich", "immich"),
    "SEARCH_FUSION": ("weighted", "weighted"),
    "SEARCH_BAR": ("prefix", "prefix"),
    **{f"ROUTE_{task}": ("upstream", "upstream") for task in ("CLIP", "FACES", "OCR")},
}


def another_value(variable: str, default: object) -> tuple[str, Any]:
    """Return a valid value that is not the default, as text and as it is read."""
    if variable in OTHER_VALUES:
        return OTHER_VALUES[variable]
    if isinstance(default, bool):
        return str(not default), not default
    if isinstance(default, int | float):
        return str(default + 7), default + 7
    if isinstance(default, Path) or variable in ("CLIP_DOWNLOAD_ROOT", "MODEL_CATALOG"):
        return "/some/where", Path("/some/where")
    return "a name", "a name"


Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return the settings under an environment that holds the variables given and no other of ours."""
    monkeypatch.chdir(tmp_path)
    ours = {variable.lower() for variable in LEAVES}
    for variable in list(os.environ):
        if variable.lower() in ours:
            monkeypatch.delenv(variable)

    def settings(**variables: str) -> Settings:
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        return Settings()

    return settings


def value_at(settings: object, path: tuple[str, ...]) -> object:
    for name in path:
        settings = getattr(settings, name)
    return settings


@pytest.mark.parametrize("variable", LEAVES)
def test_every_setting_is_read_from_its_variable(read: Read, variable: str) -> None:
    path, default = LEAVES[variable]
    text, expected = another_value(variable, default)
    assert expected != default
    needed = {"IMMICH_API": "http://gpu-box:3003"} if variable.startswith("ROUTE_") else {}
    assert value_at(read(**needed, **{variable: text}), path) == expected


@pytest.mark.parametrize("variable", LEAVES)
def test_every_setting_is_read_from_a_file_too(read: Read, variable: str, tmp_path: Path) -> None:
    path, default = LEAVES[variable]
    text, expected = another_value(variable, default)
    (tmp_path / ".env").write_text(f"IMMICH_API=http://gpu-box:3003\n{variable}={text}\n", encoding="utf-8")
    assert value_at(read(), path) == expected


def test_the_environment_wins_over_the_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_BATCH=2\nHTTP_PORT=4000\nSOMETHING_ELSE=1\n")
    settings = read(MAX_BATCH="5")
    assert (settings.max_batch, settings.http_port) == (5, 4000)


def test_an_empty_variable_is_one_that_is_not_set(read: Read) -> None:
    """Compose files write ``${IMMICH_PORT:-}``."""
    assert read(IMMICH_PORT="", API_AUTH_KEY="", CLIP_DOWNLOAD_ROOT="", DEVICE="") == read()


def test_words_may_be_in_capitals(read: Read) -> None:
    settings = read(DEVICE="CUDA", LOG_FORMAT="JSON", IMMICH_LOG_LEVEL="WARN")
    assert (settings.device, settings.log_format, settings.log_level) == ("cuda", "json", "warn")


def test_the_six_preload_names_go_together(read: Read) -> None:
    preloads = {variable: variable.lower() for variable in LEAVES if variable.startswith("MACHINE_LEARNING_PRELOAD__")}
    assert len(preloads) == 6
    settings = read(**preloads)
    assert [value_at(settings, LEAVES[variable][0]) for variable in preloads] == list(preloads.values())


# What programs and shells set for purposes of their own: csh and zsh HOST, platforms PORT, and so on.
@pytest.mark.parametrize(
    ("variable", "text"),
    [("HOST", "nas"), ("PORT", "80"), ("WORKERS", "9"), ("LOG_LEVEL", "x"), ("PRELOAD__CLIP__VISUAL", "x")],
)
def test_a_variable_that_is_no_setting_changes_nothing(read: Read, variable: str, text: str) -> None:
    before = read()
    assert read(**{variable: text}) == before


def names_of_what_is_wrong(error: ValidationError) -> list[str]:
    return [line.partition(":")[0].strip() for line in what_is_wrong(error).splitlines()[1:]]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("IMMICH_HOST", "nas.local"),
        ("IMMICH_PORT", "65536"),
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "http"),
        ("IMMICH_LOG_LEVEL", "loud"),
        ("MACHINE_LEARNING_MODEL_TTL", "-1"),
        ("MACHINE_LEARNING_WORKERS", "0"),
        ("MACHINE_LEARNING_HTTP_KEEPALIVE_TIMEOUT_S", "2"),
        ("DEVICE", "rocm"),
        ("ENGINE", "tensorrt"),
        ("PRECISION", "fp8"),
        ("DETECTION_THRESH", "1.5"),
        ("RUNNER_PROCESSES", "many"),
        ("MODEL_HUB", "github"),
        ("RUNNER_NICE", "20"),
        ("MAX_BATCH", "0"),
        ("MAX_BODY_BYTES", "10MB"),
        ("REQUEST_TIMEOUT", "0"),
        ("LOG_FORMAT", "xml"),
        ("OFFLINE", "perhaps"),
    ],
)
def test_a_wrong_value_names_its_variable(read: Read, variable: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(**{variable: text})
    assert names_of_what_is_wrong(caught.value) == [variable]


def test_several_wrong_values_are_told_at_once(read: Read) -> None:
    with pytest.raises(ValidationError) as caught:
        read(DEVICE="rocm", MAX_BATCH="none")
    assert sorted(names_of_what_is_wrong(caught.value)) == ["DEVICE", "MAX_BATCH"]


@pytest.mark.parametrize(
    ("given", "listened_on"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "127.0.0.1"),
        ("::", "::"),
        ("[::]", "::"),
        ("[::1]", "::1"),
        ("192.168.1.7", "192.168.1.7"),
    ],
)
def test_a_host_is_an_address_in_any_of_its_forms(read: Read, given: str, listened_on: str) -> None:
    assert read(IMMICH_HOST=given).host == listened_on


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({}, 3003),
        ({"HTTP_PORT": "8060"}, 8060),
        ({"IMMICH_PORT": "3004"}, 3004),
        ({"IMMICH_PORT": "3004", "HTTP_PORT": "8060"}, 3004),
        ({"IMMICH_PORT": "0", "HTTP_PORT": "8060"}, 8060),
    ],
)
def test_immichs_port_comes_before_the_other(read: Read, variables: dict[str, str], port: int) -> None:
    assert read(**variables).listen_port == port


def test_a_folder_may_be_given_from_home(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = read(CLIP_DOWNLOAD_ROOT="~/clip")
    assert settings.clip_download_root == Path("/home/somebody/clip")
    assert settings.cache_folder == Path("/home/somebody/.cache/immich-bento")


@pytest.mark.parametrize("text", ["WARN", "Warn", "warn"])
def test_the_log_level_is_read_in_any_case(read: Read, text: str) -> None:
    assert read(IMMICH_LOG_LEVEL=text).log_level == "warn"


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ((None,), ()),
        (("",), ()),
        ((" , ,",), ()),
        (("a",), ("a",)),
        ((" b , a,b ",), ("b", "a")),
        (("a,b", None, "b,c"), ("a", "b", "c")),
    ],
)
def test_names_are_distinct_and_in_order(lists: tuple[str | None, ...], expected: tuple[str, ...]) -> None:
    assert names(*lists) == expected


def shown(default: object) -> str:
    """Return a default as the document writes it."""
    if default is None or default == "":
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def documented() -> list[tuple[str, str, str]]:
    """Return (name, default, meaning) of the tables' rows whose first cell is a name in backticks."""
    rows = (
        re.fullmatch(r"\| `([A-Z][A-Z0-9_]*)` \| ([^|]*?) \| (.*) \|", line)
        for line in DOCUMENT.read_text("utf-8").splitlines()
    )
    return [(row[1], row[2], row[3]) for row in rows if row]


def test_the_document_lists_every_setting_once_with_its_default_and_nothing_else() -> None:
    listed = [name for name, _, _ in documented()]
    assert sorted(listed) == sorted(LEAVES)
    assert {name: default for name, default, _ in documented()} == {
        name: shown(default) for name, (_, default) in LEAVES.items()
    }


def test_the_document_gives_every_setting_a_meaning() -> None:
    assert [name for name, _, meaning in documented() if len(meaning.split()) < 3 or not meaning.endswith(".")] == []


def test_the_address_of_immich_has_no_slash_at_its_end() -> None:
    assert Settings(_env_file=None, immich_url="http://immich:2283//").immich_url == "http://immich:2283"


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "IMMICH_URL"])
@pytest.mark.parametrize(
    "value",
    ["hf-mirror.com", "://x", "ftp://x", "http://a b", "http://me:se/cret@hub", "http://me:1?x@hub", "http://[::1"],
)
def test_an_address_without_its_scheme_ends_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=r"must read like http"):
        Settings()


def test_blanks_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_MODEL", " ViT-B-16 ")
    assert Settings().clip_model == "ViT-B-16"
