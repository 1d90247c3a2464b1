"""Every setting of the service: one name, one default. ``docs/settings.md`` lists the same; a test compares them.

Names are Immich's where the meaning is Immich's, then those of the system that this service follows, then our own.
Read from the environment (and from a file ``.env`` in the working directory).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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

    model_config = SettingsConfigDict(env_file=".env", env_nested_delimiter="__", extra="ignore", populate_by_name=True, frozen=True)

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

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def listen_port(self) -> int:
        """The port that is listened on."""
        return self.port or self.http_port


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
