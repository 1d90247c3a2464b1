"""``GET /``: a page for people who open the service in a browser, and Immich's JSON for everyone else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from errors import ServiceError
from runners.contract import ModelState, Runners
from serving.deadline import timeout
from settings.version import VERSION

_ANSWER_WITHIN = 2.0
"""Seconds that the runners have to say what they are doing."""
_LINKS = {
    "/readyz": "ready?",
    "/metrics": "metrics (Prometheus)",
    "https://github.com/immich-app/immich": "Immich",
    "https://mtmt.tech/docs/advanced/ocr_api": "MT Photos: its API",
}
_HEADERS = {
    "vary": "Accept",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>immich-bento</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}
dt {{ font-weight: 600 }}
</style>
</head>
<body>
<h1>immich-bento</h1>
<p>{state}</p>
<dl>
{facts}
</dl>
<p>{links}</p>
<p>Documentation: README.md and the folder docs/, in the source of this project that the service was installed from.</p>
</body>
</html>
"""


async def root(request: Request, runners: Runners | None) -> Response:
    """Return the page if the client asks for HTML by name, as browsers do; if not, ``{"message": "Immich ML"}``, as
    Immich expects.
    """
    if not _wants_html(request.headers.get("accept", "")):
        return JSONResponse({"message": "Immich ML"}, headers={"vary": "Accept"})
    return HTMLResponse(await _page(runners), headers=_HEADERS)


def _wants_html(accept: str) -> bool:
    """Return whether ``text/html`` is listed and not refused (RFC 9110, 12.5.1)."""
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        if media_type == "text/html":
            return not any(
                name == "q" and not weight.strip("0.") for name, _, weight in (one.partition("=") for one in parameters)
            )
    return False


async def _page(runners: Runners | None) -> str:
    facts: dict[str, str] = {"Version": VERSION}
    state = "The service is running."
    if runners is None:
        state = "The service is starting."
    else:
        try:
            async with timeout(_ANSWER_WITHIN):
                device, loaded, models = await asyncio.gather(
                    runners.device(), runners.loaded_models(), runners.models()
                )
            facts |= {"Device": device, "Models loaded": _listed(loaded), **_missing(models)}
            if any(model.named and model.state != "here" for model in models):
                state = "The service is running, but not ready: a model that its settings name is not here."
        except (ServiceError, asyncio.TimeoutError):
            state = "The service answers, but its runners do not. They may be starting again; the log says more."
    return _PAGE.format(
        state=escape(state),
        facts="\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()),
        links=" · ".join(f'<a href="{escape(target)}">{escape(text)}</a>' for target, text in _LINKS.items()),
    )


def _missing(models: Sequence[ModelState]) -> dict[str, str]:
    """Return how far the models are that are on their way, and which cannot be had, each once. Names no host."""
    moving = {model.model: model.detail for model in models if model.state == "on its way"}
    waiting = {model.model: model.waiting for model in models if model.state == "unavailable" and model.waiting}
    moving = {**waiting, **moving}  # a process that asks knows more than one that waits for its turn to
    lacking = dict.fromkeys(one.model for one in models if one.state == "unavailable" and one.model not in moving)
    facts = {}
    if moving:
        facts["Models on their way"] = "; ".join(dict.fromkeys(moving.values()))
    if lacking:
        facts["Models that cannot be had"] = f"{', '.join(lacking)}; the log says why"
    return facts


def _listed(loaded: Mapping[str, tuple[str, ...]]) -> str:
    return (
        "; ".join(f"{task}: {', '.join(models)}" for task, models in loaded.items() if models)
        or "none yet; they load when first used"
    )
