"""Settings of our own: processes, limits, logs, and where weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from settings.addresses import check_url


class ServingSettings(BaseModel):
    """Settings of how requests are taken in and worked on."""

    ocr_model: str = Field(
        "",
        description="OCR model that answers every OCR request (`PP-OCRv6_small` needs no download); empty: the model "
        "asked for.",
    )
    ocr_max_boxes: int = Field(
        4000,
        ge=1,
        validation_alias="OCR_MAX_BOXES",
        description="Most regions of one picture that are read; of more, as many are taken from all over it, and the "
        "answer says how many were left out.",
    )
    face_second_look: bool = Field(
        True,
        validation_alias="FACE_SECOND_LOOK",
        description="Look a second time for faces where none was found: with a border, turned by quarters, in tiles "
        "where a picture is long, and around the likeliest places. A picture without faces costs one more call of the "
        "detector, on a sixth of its pixels, and one of 2,880 pixels and more mostly two.",
    )
    extra_tasks: str = Field(
        "", description="Python modules (comma separated) with tasks of your own: docs/architecture.md."
    )
    runner_processes: Literal["auto", "shared", "split"] = Field(
        "auto",
        description="`shared`: all picture models in one process, text in another; `split`: one each; `auto`: shared "
        "on up to 4 cores.",
    )
    fork_processes: bool = Field(
        True,
        description="Fork processes from the one that watches them (Linux): their libraries are in memory once. "
        "`false` starts each anew.",
    )
    engine: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto",
        description="What computes models on the CPU. `auto`: OpenVINO where it is faster (x86-64), else ONNX Runtime.",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="What models are computed in. `auto`: bf16 where that is faster, else fp32, and lines of text in "
        "int8 where the processor has VNNI; `int8`: CLIP too, after `python -m tools.quantize`.",
    )
    runner_nice: int = Field(
        10,
        ge=0,
        le=19,
        description="Niceness of the processes that work on pictures, so that pings and searches come first.",
    )
    max_batch: int = Field(8, ge=1, description="Most pictures or texts that one call of a model takes.")
    max_body_bytes: int = Field(100 * 2**20, ge=1, description="Largest request body; above it 413.")
    max_picture_pixels: int = Field(
        100_000_000, ge=1, description="Largest picture (width times height) that is decoded; above it 413."
    )
    body_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds over which the rate of `BODY_MIN_RATE` is measured; a body that does not come at all is "
        "given up after as many.",
    )
    body_min_rate: float = Field(
        16 * 1024,
        ge=0,
        description="Bytes a second at which a body must come, or it is given up (408). Time in which it waits for "
        "room in the queue does not count.",
    )
    queue_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Bytes of pictures held in memory at once; further requests wait unread. One client has half at "
        "most while others wait.",
    )
    queue_requests: int = Field(
        1024,
        ge=1,
        description="Requests that may wait for room in the queue, half of them of one client; above it 503.",
    )
    request_timeout: float = Field(
        300.0, gt=0, description="Seconds after which a request is given up (504). Immich itself waits 300."
    )
    shutdown_timeout: int = Field(8, ge=1, description="Seconds that running requests have to finish after SIGTERM.")
    stuck_after: float = Field(
        120.0,
        ge=0,
        le=86400,
        description="Seconds for which a process may stand still before it is ended and a fresh one started; 0: for "
        "ever.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text` for people, `json` for machines: one object per line."
    )
    model_catalog: Path | None = Field(
        None, description="A file of your own models, in the form of `models/catalog.toml`."
    )
    model_retry_after: int = Field(
        30, ge=0, description="Seconds after which a model that could not be had is tried again."
    )
    offline: bool = Field(False, description="Never download: models come from folders and installed packages only.")
    hf_endpoint: str = Field("https://huggingface.co", description="The Hugging Face hub, or a mirror of it.")
    modelscope_endpoint: str = Field("https://modelscope.cn", description="ModelScope, or a mirror of it.")
    model_hub: Literal["auto", "huggingface", "modelscope"] = Field(
        "auto",
        description="Which hub is asked first for what both have (CN-CLIP's checkpoints); `auto`: the one whose first "
        "bytes come first.",
    )

    @field_validator("hf_endpoint", "modelscope_endpoint")
    @classmethod
    def _where_a_hub_is(cls, value: str) -> str:
        check_url(value, credentials=True)
        return value

    keep_checkpoints: bool = Field(
        False, description="Keep a checkpoint after its model was made of it; otherwise it is deleted."
    )
