"""Settings of the key, and of what other servers answer."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from settings.addresses import DnsName, split_header, upstream
from settings.lists import names

Route = Literal["local", "upstream"]
Servers: TypeAlias = "tuple[str | DnsName, ...]"
"""Addresses of other Immich ML servers: URLs without slashes at their ends, and DNS names."""
_ROUTED = ("clip", "faces", "ocr")
"""Tasks that may be routed: the ends of ROUTE_… and IMMICH_API_…"""


class GatewaySettings(BaseModel):
    """Settings of who may ask, and of who answers."""

    api_auth_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Key that search and mt-photos-ai's routes ask for; without one they answer 403. There is no "
        "default.",
    )
    auth_required: Literal["mtphotos", "all"] = Field(
        "mtphotos",
        description="`all`: `/predict` wants the key too. Immich cannot send one by itself: docs/gateway.md.",
    )
    url_key: SecretStr | None = Field(
        None,
        description="Secret first step of the path: `http://host:3003/<key>/` is what Immich 3.0 and newer is given as "
        "the URL, and `/predict`, `/ping` and `/` without it answer 404. Letters, digits and `-._~`, 8 and more.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks (comma separated) of proxies before this service, whose `X-Forwarded-For` "
        "is believed; each client behind them then has a share of its own.",
    )
    route_clip: Route = Field("local", description="Who answers CLIP requests: `local`, or `upstream`.")
    route_faces: Route = Field("local", description="Who answers face requests: `local`, or `upstream`.")
    route_ocr: Route = Field("local", description="Who answers OCR requests: `local`, or `upstream`.")
    immich_api_clip: str = Field("", description="The same as `IMMICH_API`, for CLIP requests alone.")
    immich_api_faces: str = Field("", description="The same as `IMMICH_API`, for face requests alone.")
    immich_api_ocr: str = Field("", description="The same as `IMMICH_API`, for OCR requests alone.")
    immich_api: str = Field(
        "",
        validate_default=True,
        description="Immich ML servers (`http://gpu-box:3003`, comma separated) for what is routed upstream; the "
        "least busy is asked. `dns://name:3003`: every address that the DNS name has, looked up again every few "
        "seconds.",
    )
    upstream_timeout: float = Field(
        120.0, gt=0, description="Seconds that an upstream may take for one request (504 after that)."
    )
    upstream_concurrency: int = Field(
        4, ge=1, description="Requests that are sent to one upstream at the same time; further ones wait."
    )
    upstream_retry_after: float = Field(
        10.0, gt=0, description="Seconds after which an upstream that was down is tried again."
    )
    upstream_fallback: bool = Field(
        False, description="Answer locally while every upstream is down, instead of with an error."
    )
    upstream_header: SecretStr | None = Field(
        None, description="A header (`Name: value`) that is added to requests to upstreams."
    )

    @field_validator("url_key")
    @classmethod
    def _a_step(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{8,}", value.get_secret_value()):
            raise ValueError("must be 8 or more letters, digits and `-._~`, as it is a part of an address.")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for network in names(value):
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(
                    "must be addresses or networks, such as 10.0.0.1 or 172.16.0.0/12 (no bits set after the mask)."
                ) from None
        return value

    @field_validator("immich_api", "immich_api_clip", "immich_api_faces", "immich_api_ocr")
    @classmethod
    def _servers(cls, value: str) -> str:
        for address in names(value):
            upstream(address)
        return value

    @field_validator("immich_api")
    @classmethod
    def _enough(cls, value: str, info: ValidationInfo) -> str:
        for task in _ROUTED:
            # A setting that is wrong itself is not there, and has been told of.
            own = info.data.get(f"immich_api_{task}", "wrong")
            if info.data.get(f"route_{task}") == "upstream" and not names(value, own):
                raise ValueError(
                    f"ROUTE_{task.upper()}=upstream needs IMMICH_API, the address of another Immich ML server, such as "
                    "http://gpu-box:3003."
                )
        return value

    @field_validator("upstream_header")
    @classmethod
    def _header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            split_header(value.get_secret_value())
        return value

    def upstreams(self, own: str = "") -> Servers:
        """Return the servers in ``own``, the value of a setting such as ``IMMICH_API_OCR``; where it has none, those in
        ``IMMICH_API``. Each once.
        """
        return tuple(dict.fromkeys(upstream(address) for address in names(own) or names(self.immich_api)))

    def unused_servers(self) -> list[str]:
        """Return a sentence for each setting that names other servers and has no effect, as nothing is routed there."""
        routed = {task: getattr(self, f"route_{task}") == "upstream" for task in _ROUTED}
        unused = [
            f"IMMICH_API_{task.upper()} has no effect without ROUTE_{task.upper()}=upstream: the task is answered here."
            for task in _ROUTED
            if getattr(self, f"immich_api_{task}") and not routed[task]
        ]
        if self.immich_api and not any(routed.values()):
            unused.append(
                "IMMICH_API has no effect without ROUTE_CLIP, ROUTE_FACES or ROUTE_OCR=upstream: all is answered here."
            )
        return unused

    @property
    def upstream_header_pair(self) -> tuple[str, str] | None:
        """Return name and value of ``UPSTREAM_HEADER``. A secret."""
        return split_header(self.upstream_header.get_secret_value()) if self.upstream_header is not None else None
