"""Every setting of the service: one name, one default. ``docs/settings.md`` lists the same; a test compares them.

Names are Immich's where the meaning is Immich's, then mt-photos-ai's, then our own.
Read from the environment (and from a file ``.env`` in the working directory).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from settings.gateway import GatewaySettings
from settings.immich_names import ImmichNames
from settings.lists import names
from settings.mtphotos_names import MtPhotosNames
from settings.search import SearchSettings
from settings.serving import ServingSettings

__all__ = ["Settings", "names", "settings"]


class Settings(ImmichNames, MtPhotosNames, ServingSettings, GatewaySettings, SearchSettings, BaseSettings):
    """The settings of one start of the service."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="ignore",
        str_strip_whitespace=True,
        hide_input_in_errors=True,  # it may be a key or a password
        populate_by_name=True,
        frozen=True,
    )

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

    @field_validator("cache_folder", "clip_download_root", "model_catalog", "search_folder")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator(
        "log_level",
        "log_format",
        "model_revision",
        "model_hub",
        "device",
        "engine",
        "precision",
        "runner_processes",
        "search_source",
        "search_fusion",
        "search_bar",
        mode="before",
    )
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def listen_port(self) -> int:
        """Return the port that is listened on."""
        return self.port or self.http_port

    @property
    def own_url(self) -> str:
        """Return the service's address on its own machine. A secret where ``URL_KEY`` is set, which it holds."""
        key = f"/{self.url_key.get_secret_value()}" if self.url_key is not None else ""
        return f"http://127.0.0.1:{self.listen_port}{key}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
