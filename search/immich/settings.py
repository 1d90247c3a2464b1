"""Immich's settings of machine learning, as it keeps them in its own database: models and the limits of
OCR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from runners.contract import OcrOptions

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow


DEFAULT_OCR_OPTIONS = OcrOptions()
"""Immich's own; a library of files is read by the same."""


_OCR = DEFAULT_OCR_OPTIONS
_MAX_RESOLUTION = 10_000
"""Pixels: Immich allows any ``maxResolution`` from 1, so a larger one is taken for this, as in /predict."""


class _Clip(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    model_name: str = Field("ViT-B-32__openai", alias="modelName")


class _Ocr(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    model_name: str = Field("PP-OCRv5_mobile", alias="modelName")
    min_detection_score: float = Field(_OCR.min_detection_score, alias="minDetectionScore", ge=0, le=1)
    min_recognition_score: float = Field(_OCR.min_recognition_score, alias="minRecognitionScore", ge=0, le=1)
    max_resolution: Annotated[int, AfterValidator(lambda value: min(value, _MAX_RESOLUTION))] = Field(
        _OCR.max_resolution, alias="maxResolution", ge=1
    )


class _MachineLearning(BaseModel):
    """Immich 2.5's own defaults: it stores what differs from them."""

    model_config = ConfigDict(extra="ignore")
    clip: _Clip = _Clip()
    ocr: _Ocr = _Ocr()


@dataclass(frozen=True, slots=True)
class ImmichSettings:
    """Model names as Immich sends them."""

    clip_model: str
    ocr_model: str
    ocr_options: OcrOptions


async def immich_settings(connection: AsyncConnection[DictRow]) -> ImmichSettings:
    """Return Immich's settings, or its defaults where they cannot be read: the role may not, or a file outside of the
    database holds them.
    """
    stored = await _stored(connection)
    try:
        chosen = _MachineLearning.model_validate(stored)
    except ValidationError:  # of another Immich than those known here
        chosen = _MachineLearning()
    ocr = chosen.ocr
    options = OcrOptions(ocr.min_detection_score, ocr.min_recognition_score, ocr.max_resolution)
    return ImmichSettings(chosen.clip.model_name, ocr.model_name, options)


async def _stored(connection: AsyncConnection[DictRow]) -> Any:
    readable = await connection.execute(
        "select coalesce(has_table_privilege(to_regclass('public.system_metadata'), 'select'), false) as readable"
    )
    row = await readable.fetchone()
    if row is None or not row["readable"]:
        return {}
    found = await connection.execute(
        "select value -> 'machineLearning' as value from public.system_metadata where key = 'system-config'"
    )
    row = await found.fetchone()
    return (row["value"] if row else None) or {}
