"""Settings of search: where its tables are, and how its two lists become one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, field_validator

from settings.addresses import check_url


class SearchSettings(BaseModel):
    """Settings of ``search/``, in the service and on the command line."""

    search_enabled: bool = Field(True, description="Offer search; without it no database is started or connected to.")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL 14 to 18 with pgvector, as `postgresql://user:password@host/database`; empty: the "
        "embedded one.",
    )
    search_folder: Path = Field(
        Path("~/.local/share/immich-bento"),
        description="Where the embedded PostgreSQL keeps its data; for root `/var/lib/immich-bento`, unless it is set.",
    )
    search_source: Literal["auto", "standalone", "immich", "immich-1.134"] = Field(
        "auto",
        description="Whose pictures are searched: our own index, or Immich's tables; `auto`: Immich's where the "
        "database has them.",
    )
    search_sync_seconds: float = Field(
        60.0, ge=1, description="Seconds between looks for texts that Immich read or deleted."
    )
    search_fusion: Literal["rrf", "weighted"] = Field(
        "rrf",
        description="How hybrid search makes one order of two: reciprocal ranks, or the weighted sum of similarity "
        "and text rank.",
    )
    search_clip_weight: float = Field(1.0, ge=0, description="Weight of meaning in hybrid search.")
    search_ocr_weight: float = Field(1.0, ge=0, description="Weight of text in hybrid search.")
    page_enabled: bool = Field(True, description="Serve the page `/ai`; it wants a session of Immich, or the key.")
    thumbnail_cache_bytes: int = Field(
        256 * 2**20,
        ge=0,
        description="Most bytes of small pictures of our own index that the page keeps, in the folder of models.",
    )
    search_bar: Literal["hybrid", "prefix", "off"] = Field(
        "hybrid",
        description="What is answered of Immich's own search bar, where a proxy sends it here: `hybrid`: all; "
        "`prefix`: what asks for text (`ocr:`); `off`: nothing, all is passed on.",
    )
    immich_url: str = Field(
        "",
        description="Address of Immich itself (`http://immich:2283`), for its search bar, for telling who looks at the "
        "page, and for re-doing one of its assets.",
    )
    immich_api_key: SecretStr | None = Field(
        None, min_length=1, description="Key for the API of Immich, to re-do one of its assets. No default."
    )
    immich_api_keys: SecretStr | None = Field(
        None,
        min_length=1,
        description="Keys of further users of Immich, comma-separated: a re-do takes the one that may see the picture.",
    )

    @field_validator("immich_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        if value:
            check_url(value)
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _a_conninfo(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            from psycopg import ProgrammingError  # large, and of no use without a DATABASE_URL
            from psycopg.conninfo import conninfo_to_dict

            try:
                conninfo_to_dict(value.get_secret_value())
            except ProgrammingError:  # which quotes it, password and all
                raise ValueError("must read like postgresql://user:password@host:5432/database.") from None
        return value
