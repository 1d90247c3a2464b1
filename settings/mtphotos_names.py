"""Settings under the names of mt-photos-ai and of the gateway that split Immich's requests before it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class MtPhotosNames(BaseModel):
    """Settings that people who come from these services have made already."""

    clip_model: str = Field(
        "",
        description="CLIP model that answers every request of its embedding size (`ViT-B-16`, …); empty: the model "
        "asked for.",
    )
    clip_download_root: Path | None = Field(
        None, description="Folder that is searched for CLIP models before `MACHINE_LEARNING_CACHE_FOLDER`."
    )
    device: Literal["auto", "cpu", "cuda", "openvino"] = Field(
        "auto",
        description="Where models run. `auto`: CUDA if usable, else the CPU. Any other: that one, or an error at "
        "start.",
    )
    recognition_model: str = Field(
        "", description="Face model that answers every face request (`buffalo_s`, …); empty: the model asked for."
    )
    detection_threshold: float = Field(
        0.65,
        ge=0,
        le=1,
        validation_alias="DETECTION_THRESH",
        description="Least score of a face where the request names none.",
    )
    http_port: int = Field(3003, ge=1, le=65535, description="Port to listen on unless `IMMICH_PORT` names one.")
