"""Settings under the names of Immich's own machine-learning container, with its meanings."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

LogLevel = Literal["verbose", "debug", "log", "info", "warn", "warning", "error", "fatal", "critical"]


class PreloadClip(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__CLIP__*``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    textual: str | None = Field(None, description="CLIP models (comma separated) whose text half is loaded at start.")
    visual: str | None = Field(None, description="CLIP models (comma separated) whose image half is loaded at start.")


class PreloadPair(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__FACIAL_RECOGNITION__*`` and ``…__OCR__*``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    detection: str | None = Field(None, description="Models (comma separated) loaded at start.")
    recognition: str | None = Field(None, description="Models (comma separated) loaded at start.")


class Preload(BaseModel):
    """``MACHINE_LEARNING_PRELOAD__*``: what is loaded at start and never unloaded for being idle."""

    model_config = ConfigDict(hide_input_in_errors=True)

    clip: PreloadClip = PreloadClip()
    facial_recognition: PreloadPair = PreloadPair()
    ocr: PreloadPair = PreloadPair()


class ImmichNames(BaseModel):
    """Settings of Immich's container."""

    host: str = Field(
        "0.0.0.0",  # noqa: S104 - Immich runs on another machine or in another container
        validation_alias="IMMICH_HOST",
        description="Address to listen on.",
    )
    port: int = Field(
        0, ge=0, le=65535, validation_alias="IMMICH_PORT", description="Port to listen on; 0 stands for `HTTP_PORT`."
    )
    log_level: LogLevel = Field("info", validation_alias="IMMICH_LOG_LEVEL", description="How much is logged.")
    cache_folder: Path = Field(
        Path("~/.cache/immich-bento"),
        validation_alias="MACHINE_LEARNING_CACHE_FOLDER",
        description="Where models are kept: `<task>/<model name>/`, one folder each.",
    )
    model_revision: Literal["main", "v2"] = Field(
        "main",
        validation_alias="MACHINE_LEARNING_MODEL_REVISION",
        description="Revision in which Immich's own CLIP models are looked for first, and fetched: `v2` is kept in a "
        "folder `v2` of the model's.",
    )
    model_ttl: int = Field(
        300,
        ge=0,
        validation_alias="MACHINE_LEARNING_MODEL_TTL",
        description="Seconds without use after which a model is unloaded; 0 keeps it.",
    )
    model_ttl_poll_s: int = Field(
        10,
        ge=1,
        validation_alias="MACHINE_LEARNING_MODEL_TTL_POLL_S",
        description="Seconds between looks for idle models.",
    )
    preload: Preload = Field(
        Preload(),
        validation_alias="MACHINE_LEARNING_PRELOAD",
        description="Models loaded at start; see the six names below.",
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
        description="Threads that all models of a runner process share for computing; 0: one per core that the "
        "container may use.",
    )
    inter_op_threads: int = Field(
        1,
        ge=1,
        validation_alias="MACHINE_LEARNING_MODEL_INTER_OP_THREADS",
        description="Parts of one graph that run side by side.",
    )
    workers: int = Field(
        1,
        ge=1,
        validation_alias="MACHINE_LEARNING_WORKERS",
        description="Processes that speak HTTP; the models are not multiplied.",
    )
    device_ids: str = Field(
        "0",
        validation_alias="MACHINE_LEARNING_DEVICE_IDS",
        description="GPU number, or a comma-separated list; runners take turns.",
    )
    keep_alive: int = Field(
        75,
        ge=5,
        validation_alias="MACHINE_LEARNING_HTTP_KEEPALIVE_TIMEOUT_S",
        description="Seconds that an idle connection is kept. Immich closes its own after 4; closing sooner loses "
        "requests.",
    )

    @field_validator("host")
    @classmethod
    def _an_address(cls, value: str) -> str:
        # BentoML listens on addresses only; Immich's documentation also writes IPv6 in brackets.
        value = {"localhost": "127.0.0.1"}.get(value, value.strip("[]"))
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("must be an IP address; 0.0.0.0 listens on all addresses of this machine.") from None
        return value
