"""Remembers where a model was looked for, and puts it into the sentence that a person reads when it was not found."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import NoReturn

from errors import ModelUnavailable
from models.digest import Digest
from models.entry import HubFile, ModelEntry
from settings import Settings


class SearchLog:
    """One search for the files of one model."""

    def __init__(self, entry: ModelEntry, settings: Settings, folder: Path) -> None:
        self._entry, self._settings, self._folder = entry, settings, folder
        self._places: dict[str, str] = {}

    def tried(self, place: object, why: str) -> None:
        """Note a place and why it would not do. Of a place that is looked at twice the first reason stays."""
        self._places.setdefault(str(place), why)

    def nothing_stored(self, tag: str) -> None:
        self.tried("the BentoML model store", f"no {tag}")

    def wrong(self, path: Path, actual: Digest, expected: Set[Digest]) -> None:
        """Note a file whose bytes are not those that the model has."""
        due = " or ".join(sorted(map(str, expected)))
        self.tried(path, f"wrong bytes, {actual} instead of {due} (damaged, cut short, or another file)")

    def require_network(self) -> None:
        """Raises ``ModelUnavailable`` if the settings forbid downloads."""
        if self._settings.offline:
            self.tried("the network", "not asked, since OFFLINE is set")
            self.give_up()

    def give_up(self) -> NoReturn:
        """Raises ``ModelUnavailable``."""
        raise ModelUnavailable(self.message())

    def message(self) -> str:
        """What is missing, where it was looked for, and what to do."""
        entry = self._entry
        return (
            f"The weights of the {entry.task.value} model {entry.name} cannot be had now. "
            f"Looked at: {'; '.join(f'{place}: {why}' for place, why in self._places.items())}. What to do: {'; or '.join(self._advice())}."
        )

    def _advice(self) -> list[str]:
        entry = self._entry
        if entry.folder is not None:
            return [f"put the files back into {entry.folder}"]
        required = ", ".join(file.name for file in entry.files if file.required)
        advice = [f"place {required} at {self._folder}/"]
        if self._settings.offline and self._is_on_a_hub():
            advice.append("unset OFFLINE")
        elif self._is_on_a_hub():
            advice.append("set HF_ENDPOINT to a mirror of the hub that can be reached")
        advice.append(f"run `python -m models pull {entry.name} --from DIR` with a folder that holds them")
        return [*advice, entry.without_download]

    def _is_on_a_hub(self) -> bool:
        entry = self._entry
        return entry.hub is not None or any(isinstance(source, HubFile) for file in entry.files for source in file.sources)
