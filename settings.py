"""Every setting of the service: one name, one default. ``docs/settings.md`` lists the same; a test compares them.

Names are Immich's where the meaning is Immich's, then those of the system that this service follows, then our own.
Read from the environment (and from a file ``.env`` in the working directory).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from addresses import check_url, split_header

Route = Literal["local", "upstream"]
LogLevel = Literal["verbose", "debug", "log", "info", "warn", "warning", "error", "fatal", "critical"]


class PreloadClip(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__CLIP__*``."""

    textual: str | None = Field(None, description="CLIP models (comma separated) whose text half is loaded at start.")
    visual: str | None = Field(None, description="CLIP models (comma separated) whose image half is loaded at start.")


class PreloadPair(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__FACIAL_RECOGNITION__*`` and ``…__OCR__*``."""

    detection: str | None = Field(None, description="Models (comma separated) loaded at start.")
    recognition: str | None = Field(None, description="Models (comma separated) loaded at start.")


class Preload(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__*``: what is loaded at start and never unloaded for being idle."""

    clip: PreloadClip = PreloadClip()
    facial_recognition: PreloadPair = PreloadPair()
    ocr: PreloadPair = PreloadPair()


def names(*lists: str | None) -> tuple[str, ...]:
    """The distinct names in comma-separated lists, in order."""
    found = (name.strip() for text in lists for name in (text or "").split(","))
    return tuple(dict.fromkeys(name for name in found if name))


class Settings(BaseSettings):
    """The settings of one start of the service."""

    model_config = SettingsConfigDict(
        env_file=".env", env_nested_delimiter="__", env_ignore_empty=True, extra="ignore", populate_by_name=True, frozen=True
    )

    # --- Immich's names -------------------------------------------------------------------------------------------------
    host: str = Field(
        "0.0.0.0",  # noqa: S104 - Immich runs on another machine or in another container
        validation_alias="IMMICH_HOST",
        description="Address to listen on.",
    )
    port: int = Field(0, ge=0, le=65535, validation_alias="IMMICH_PORT", description="Port to listen on; 0 stands for `HTTP_PORT`.")
    log_level: LogLevel = Field("info", validation_alias="IMMICH_LOG_LEVEL", description="How much is logged.")
    cache_folder: Path = Field(
        Path("~/.cache/immich-bento"),
        validation_alias="MACHINE_LEARNING_CACHE_FOLDER",
        description="Where models are kept: `<task>/<model name>/`, one folder each.",
    )
    model_ttl: int = Field(
        300,
        ge=0,
        validation_alias="MACHINE_LEARNING_MODEL_TTL",
        description="Seconds without use after which a model is unloaded; 0 keeps it.",
    )
    model_ttl_poll_s: int = Field(
        10, ge=1, validation_alias="MACHINE_LEARNING_MODEL_TTL_POLL_S", description="Seconds between looks for idle models."
    )
    preload: Preload = Field(
        Preload(), validation_alias="MACHINE_LEARNING_PRELOAD", description="Models loaded at start; see the six names below."
    )
    request_threads: int = Field(
        0,
        ge=0,
        validation_alias="MACHINE_LEARNING_REQUEST_THREADS",
        description="Batches, of different models, that one runner process works on at the same time; 0: one per core.",
    )
    intra_op_threads: int = Field(
        0,
        ge=0,
        validation_alias="MACHINE_LEARNING_MODEL_INTRA_OP_THREADS",
        description="Threads that all models of a runner process share for computing; 0: one per core that the container may use.",
    )
    inter_op_threads: int = Field(
        1, ge=1, validation_alias="MACHINE_LEARNING_MODEL_INTER_OP_THREADS", description="Parts of one graph that run side by side."
    )
    workers: int = Field(
        1, ge=1, validation_alias="MACHINE_LEARNING_WORKERS", description="Processes that speak HTTP; the models are not multiplied."
    )
    device_ids: str = Field(
        "0", validation_alias="MACHINE_LEARNING_DEVICE_IDS", description="GPU number, or a comma-separated list; runners take turns."
    )
    keep_alive: int = Field(
        75,
        ge=5,
        validation_alias="MACHINE_LEARNING_HTTP_KEEPALIVE_TIMEOUT_S",
        description="Seconds that an idle connection is kept. Immich closes its own after 4; closing sooner loses requests.",
    )

    # --- names of the system that this follows --------------------------------------------------------------------------
    clip_model: str = Field(
        "",
        validation_alias="CLIP_MODEL",
        description="CLIP model that answers every request of its embedding size (`ViT-B-16`, …); empty: the model asked for.",
    )
    clip_download_root: Path | None = Field(
        None,
        validation_alias="CLIP_DOWNLOAD_ROOT",
        description="Folder that is searched for CLIP models before `MACHINE_LEARNING_CACHE_FOLDER`.",
    )
    device: Literal["auto", "cpu", "cuda", "openvino"] = Field(
        "auto",
        validation_alias="DEVICE",
        description="Where models run. `auto`: CUDA if usable, else the CPU. Any other: that one, or an error at start.",
    )
    recognition_model: str = Field(
        "",
        validation_alias="RECOGNITION_MODEL",
        description="Face model that answers every face request (`buffalo_s`, …); empty: the model asked for.",
    )
    detection_threshold: float = Field(
        0.65, ge=0, le=1, validation_alias="DETECTION_THRESH", description="Least score of a face where the request names none."
    )
    http_port: int = Field(
        3003, ge=1, le=65535, validation_alias="HTTP_PORT", description="Port to listen on unless `IMMICH_PORT` names one."
    )

    # --- our own --------------------------------------------------------------------------------------------------------
    ocr_model: str = Field(
        "",
        validation_alias="OCR_MODEL",
        description="OCR model that answers every OCR request (`PP-OCRv6_small` needs no download); empty: the model asked for.",
    )
    runner_processes: Literal["auto", "shared", "split"] = Field(
        "auto",
        validation_alias="RUNNER_PROCESSES",
        description="`shared`: all picture models in one process, text in another; `split`: one each; `auto`: shared on up to 4 cores.",
    )
    runner_nice: int = Field(
        5,
        ge=0,
        le=19,
        validation_alias="RUNNER_NICE",
        description="Niceness of the processes that work on pictures, so that pings and searches come first.",
    )
    max_batch: int = Field(8, ge=1, validation_alias="MAX_BATCH", description="Most pictures or texts that one call of a model takes.")
    max_body_bytes: int = Field(100 * 2**20, ge=1, validation_alias="MAX_BODY_BYTES", description="Largest request body; above it 413.")
    max_picture_pixels: int = Field(
        100_000_000,
        ge=1,
        validation_alias="MAX_PICTURE_PIXELS",
        description="Largest picture (width times height) that is decoded; above it 413.",
    )
    body_timeout: float = Field(
        30.0, gt=0, validation_alias="BODY_TIMEOUT", description="Seconds without a byte after which a half-sent request is given up (408)."
    )
    queue_bytes: int = Field(
        256 * 2**20,
        ge=1,
        validation_alias="QUEUE_BYTES",
        description="Bytes of pictures held in memory at once; further requests wait unread.",
    )
    queue_requests: int = Field(
        1024, ge=1, validation_alias="QUEUE_REQUESTS", description="Requests that may wait for room in the queue; above it 503."
    )
    request_timeout: float = Field(
        300.0,
        gt=0,
        validation_alias="REQUEST_TIMEOUT",
        description="Seconds after which a request is given up (504). Immich itself waits 300.",
    )
    shutdown_timeout: int = Field(
        8, ge=1, validation_alias="SHUTDOWN_TIMEOUT", description="Seconds that running requests have to finish after SIGTERM."
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias="LOG_FORMAT", description="`text` for people, `json` for machines: one object per line."
    )
    model_catalog: Path | None = Field(
        None, validation_alias="MODEL_CATALOG", description="A file of your own models, in the form of `models/catalog.toml`."
    )
    model_retry_after: int = Field(
        30, ge=0, validation_alias="MODEL_RETRY_AFTER", description="Seconds after which a model that could not be had is tried again."
    )
    offline: bool = Field(
        False, validation_alias="OFFLINE", description="Never download: models come from folders and installed packages only."
    )
    hf_endpoint: str = Field(
        "https://huggingface.co", validation_alias="HF_ENDPOINT", description="The Hugging Face hub, or a mirror of it."
    )

    # --- mt-photos-ai's protocol, and other servers behind this one ---------------------------------------------------------
    api_auth_key: SecretStr | None = Field(
        None,
        min_length=1,
        validation_alias="API_AUTH_KEY",
        description="Key that clients of mt-photos-ai's routes send; without one those routes answer 403. There is no default.",
    )
    auth_required: Literal["mtphotos", "all"] = Field(
        "mtphotos",
        validation_alias="AUTH_REQUIRED",
        description="`all`: `/predict` wants the key too. Immich cannot send one by itself: docs/gateway.md.",
    )
    route_clip: Route = Field("local", validation_alias="ROUTE_CLIP", description="Who answers CLIP requests: `local`, or `upstream`.")
    route_faces: Route = Field("local", validation_alias="ROUTE_FACES", description="Who answers face requests: `local`, or `upstream`.")
    route_ocr: Route = Field("local", validation_alias="ROUTE_OCR", description="Who answers OCR requests: `local`, or `upstream`.")
    immich_api: str = Field(
        "",
        validate_default=True,
        validation_alias="IMMICH_API",
        description="Immich ML servers (`http://gpu-box:3003`, comma separated) for what is routed upstream; the least busy is asked.",
    )
    upstream_timeout: float = Field(
        120.0, gt=0, validation_alias="UPSTREAM_TIMEOUT", description="Seconds that an upstream may take for one request (504 after that)."
    )
    upstream_concurrency: int = Field(
        4,
        ge=1,
        validation_alias="UPSTREAM_CONCURRENCY",
        description="Requests that are sent to one upstream at the same time; further ones wait.",
    )
    upstream_retry_after: float = Field(
        10.0, gt=0, validation_alias="UPSTREAM_RETRY_AFTER", description="Seconds after which an upstream that was down is tried again."
    )
    upstream_fallback: bool = Field(
        False, validation_alias="UPSTREAM_FALLBACK", description="Answer locally while every upstream is down, instead of with an error."
    )
    upstream_header: SecretStr | None = Field(
        None, validation_alias="UPSTREAM_HEADER", description="A header (`Name: value`) that is added to requests to upstreams."
    )

    @field_validator("host")
    @classmethod
    def _an_address(cls, value: str) -> str:
        # BentoML listens on addresses only; Immich's documentation also writes IPv6 in brackets.
        value = {"localhost": "127.0.0.1"}.get(value, value.strip("[]"))
        ipaddress.ip_address(value)
        return value

    @field_validator("cache_folder", "clip_download_root", "model_catalog")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Field names are for calls from Python: shells and platforms set HOST and PORT for purposes of their own.
        for source in (env_settings, dotenv_settings):
            source.config = SettingsConfigDict(**{**source.config, "populate_by_name": False})
        return init_settings, env_settings, dotenv_settings

    @field_validator("log_level", "log_format", "device", "runner_processes", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("immich_api")
    @classmethod
    def _urls(cls, value: str, info: ValidationInfo) -> str:
        for url in names(value):
            check_url(url)
        routed = [f"ROUTE_{task.upper()}" for task in ("clip", "faces", "ocr") if info.data.get(f"route_{task}") == "upstream"]
        if routed and not names(value):
            raise ValueError(
                f"{routed[0]}=upstream needs IMMICH_API, the address of another Immich ML server, such as http://gpu-box:3003."
            )
        return value

    @field_validator("upstream_header")
    @classmethod
    def _header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            split_header(value.get_secret_value())
        return value

    @property
    def upstream_urls(self) -> tuple[str, ...]:
        """The addresses in ``IMMICH_API``, without slashes at their ends."""
        return names(*(url.rstrip("/") for url in names(self.immich_api)))

    @property
    def upstream_header_pair(self) -> tuple[str, str] | None:
        """Name and value of ``UPSTREAM_HEADER``. A secret."""
        return split_header(self.upstream_header.get_secret_value()) if self.upstream_header is not None else None

    @property
    def listen_port(self) -> int:
        """The port that is listened on."""
        return self.port or self.http_port


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
