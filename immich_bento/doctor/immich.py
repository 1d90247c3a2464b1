"""Immich: its address, the key, and what its machine-learning settings ask for, against what answers here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from compat.immich.entries import MAX_RESOLUTION, find_model, resolve_clip
from errors import ServiceError
from immich_bento.doctor.finding import Finding, Level, good, skipped, warning, wrong
from models.catalog import Catalog, ModelKind
from runners.tasks import FACES, OCR
from settings import Settings
from settings.addresses import shown_url

_PERMISSIONS = "asset.read, asset.view, job.create"


def check_immich(catalog: Catalog, config: Settings) -> Iterator[Finding]:
    """Yield what is found. Asks Immich three questions, and changes nothing."""
    if not config.immich_url:
        yield skipped(
            "Immich", "its address is not set here", "Set IMMICH_URL to have it checked (`http://immich-server:2283`)."
        )
        return
    key = config.immich_api_key.get_secret_value() if config.immich_api_key else None
    headers = {"x-api-key": key} if key else {}
    with httpx.Client(base_url=config.immich_url, headers=headers, timeout=10, trust_env=False) as client:
        try:
            yield _version(client, config)
            if key is None:
                yield skipped("Immich's key", "none is set", "IMMICH_API_KEY is what a picture is done again with.")
                return
            yield from _key(client)
            yield from _settings(client, catalog, config)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            yield wrong(
                "Immich", f"{shown_url(config.immich_url)} does not answer ({type(error).__name__})",
                "Check IMMICH_URL: the address of Immich's server as this machine or container reaches it.",
            )  # fmt: skip


def _version(client: httpx.Client, config: Settings) -> Finding:
    answer = client.get("/api/server/version")
    if answer.status_code != 200:
        return wrong(
            "Immich", f"{shown_url(config.immich_url)} is not Immich ({answer.status_code})", "Check IMMICH_URL."
        )
    version = answer.json()
    return good("Immich", f"{version['major']}.{version['minor']}.{version['patch']} at {shown_url(config.immich_url)}")


def _key(client: httpx.Client) -> Iterator[Finding]:
    answer = client.get("/api/users/me")
    if answer.status_code == 401:
        yield wrong(
            "Immich's key", "it is refused", "Make one in Immich (Account Settings, API Keys) for IMMICH_API_KEY."
        )
    elif answer.status_code == 403:
        yield good("Immich's key", f"accepted; what it may do cannot be read (it needs {_PERMISSIONS})")
    else:
        yield good("Immich's key", f"of an {'administrator' if answer.json().get('isAdmin') else 'ordinary user'}")


def _settings(client: httpx.Client, catalog: Catalog, config: Settings) -> Iterator[Finding]:
    answer = client.get("/api/system-config")
    if answer.status_code != 200:
        yield skipped(
            "Immich's models", "its settings can be read by an administrator's key alone",
            "With the permission systemConfig.read the key shows them.",
        )  # fmt: skip
        return
    stored: Mapping[str, Any] = answer.json()
    chosen: Mapping[str, Any] = stored["machineLearning"]
    if not chosen.get("enabled", True):
        yield wrong("Immich's machine learning", "it is switched off", "Switch it on: Administration, Settings.")
    urls = chosen.get("urls") or [chosen.get("url")]
    yield good("Immich's machine learning", f"asks {', '.join(shown_url(str(url), config.url_key) for url in urls)}")
    if config.url_key and any(str(url).endswith(config.url_key.get_secret_value()) for url in urls):
        yield wrong(
            "Immich's machine learning", "its URL has URL_KEY and no slash after it, so Immich leaves the key out",
            "Put a slash at the end of the URL: Administration, Settings, Machine Learning.",
        )  # fmt: skip
    for key, about in (("clip", "smart search"), ("facialRecognition", "faces"), ("ocr", "OCR")):
        part = chosen.get(key)
        if part is not None:
            finding = _model(key, about, part, catalog, config)
            yield finding
            if finding.level is Level.GOOD:
                yield from _limits(key, about, part, stored, config)


def _model(key: str, about: str, part: Mapping[str, Any], catalog: Catalog, config: Settings) -> Finding:
    subject, asked = f"Immich's {about}", str(part.get("modelName"))
    if not part.get("enabled", True):
        return warning(subject, "it is switched off in Immich", "Switch it on: Administration, Settings.")
    try:
        if key == "clip":
            answers = resolve_clip(asked, catalog, config)
        else:
            answers = find_model(FACES if key == "facialRecognition" else OCR, asked, catalog, config)
    except ServiceError as error:
        return wrong(subject, error.message, "Choose another model in Immich, or another one here.")
    size = catalog.find(ModelKind.CLIP, answers).embedding_size if key == "clip" else None
    return good(subject, f"it asks for {asked}; {answers} answers{f' with {size} numbers' if size else ''}")


def _limits(
    key: str, about: str, part: Mapping[str, Any], stored: Mapping[str, Any], config: Settings
) -> Iterator[Finding]:
    """Yield the limits that Immich sends along, held against what is done with them here.

    ``stored``: all of Immich's settings. What an Immich does not tell is left out.
    """
    subject = f"Immich's limits of {about}"
    if key == "facialRecognition" and (score := part.get("minScore")) is not None:
        other = f"; DETECTION_THRESH={config.detection_threshold:g} is for callers that send none"
        same = score == config.detection_threshold
        yield good(subject, f"faces are taken from a score of {score:g}{'' if same else other}")
    if key != "ocr" or (side := part.get("maxResolution")) is None:
        return
    box, text = part.get("minDetectionScore"), part.get("minRecognitionScore")
    preview = stored.get("image", {}).get("preview", {}).get("size")
    most, why = MAX_RESOLUTION, "is the most that is done here"
    if preview is not None and preview < most:
        most, why = preview, "is the short side of the previews that Immich sends, and they are not enlarged"
    if side > most:
        yield warning(
            subject, f"text is to be looked for at {side:,} pixels, but {most:,} {why}",
            f"Set the maximum resolution of OCR to {most} or less: Administration, Settings, Machine Learning.",
        )  # fmt: skip
        return
    scores = "" if box is None or text is None else f", boxes from a score of {box:g} and lines from {text:g}"
    yield good(subject, f"text is looked for at {side:,} pixels on the short side{scores}")
