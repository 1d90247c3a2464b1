"""The models that settings name: whether they are here, and whether every byte is right."""

from __future__ import annotations

from collections.abc import Iterator

from errors import ServiceError
from immich_bento.doctor.finding import Finding, good, skipped, wrong
from models.catalog import Catalog, ModelEntry, ModelKind
from models.lookup import endpoint_settings
from models.places import places, verify
from models.progress import on_its_way
from runners.task import Task
from runners.tasks import tasks_by_name
from settings import Settings
from settings.addresses import shown_url


def check_weights(catalog: Catalog, config: Settings) -> Iterator[Finding]:
    """Yield one finding for each model that a setting names. Reads every byte of them."""
    named = list(dict.fromkeys(_named(catalog, config)))
    for entry in named:
        yield _check(entry, config)
    free = [kind.value for kind in ModelKind if kind not in {entry.task for entry in named}]
    if free:
        yield skipped(
            "models",
            f"no setting names a model for {', '.join(free)}: what Immich asks for answers, and is fetched when it is "
            "first asked for",
        )


def _named(catalog: Catalog, config: Settings) -> Iterator[ModelEntry]:
    for task in tasks_by_name(config.extra_tasks).values():
        if task.kind is not None:
            for name in models_of(task, config):
                yield catalog.find(task.kind, name)


def models_of(task: Task[object], config: Settings) -> tuple[str, ...]:
    """Return the models that settings name for ``task``, the one that answers whatever is asked for first."""
    return tuple(dict.fromkeys(filter(None, (task.override(config), *task.preload(config)))))


def _check(entry: ModelEntry, config: Settings) -> Finding:
    subject = f"model {entry.name}"
    try:
        whole = next((place for place in places(entry, config) if place.whole), None)
        if whole is None:
            moving = on_its_way(entry.task, entry.name, config)
            detail = f"not here yet: {moving}" if moving is not None else "not here"
            return wrong(subject, detail, _remedy(entry, config, asked_in_vain=moving is not None and moving.since > 0))
        verdict = verify(entry, whole)
    except (ServiceError, OSError) as error:
        return wrong(subject, str(error), f"Run `python -m models verify {entry.name}`.")
    detail = f"{entry.task.value}, {whole.bytes / 1e6:.0f} MB in {whole.folder}: {verdict.state}, {verdict.detail}"
    if verdict.good:
        return good(subject, detail)
    return wrong(subject, detail, f"Run `python -m models rm {entry.name}`, then `python -m models pull {entry.name}`.")


def _remedy(entry: ModelEntry, config: Settings, *, asked_in_vain: bool) -> str:
    """Return what to do about a model that is not here. ``asked_in_vain``: hubs do not give it now."""
    pull = f"run `python -m models pull {entry.name}"
    if config.offline:
        return f"Unset OFFLINE, or {pull} --from DIR`."
    endpoints = {"HF_ENDPOINT": config.hf_endpoint, "MODELSCOPE_ENDPOINT": config.modelscope_endpoint}
    named = [f"{name} (now {shown_url(endpoints[name])})" for name in endpoint_settings(entry)]
    if asked_in_vain and named:
        return f"Set {' or '.join(named)} to a mirror that can be reached, or {pull} --from DIR`."
    return f"Wait for it, or {pull}`."
