"""Where downloads of a model go, and who is told how far they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from models.digest import DigestCache
from models.download import Progress, RemoteFile, download
from models.entry import ModelEntry
from models.transfer import Patience

log = logging.getLogger(__name__)

VERIFIED = ".verified.json"


@dataclass(frozen=True, slots=True)
class Fetching:
    """How the files of one model are fetched."""

    folder: Path
    """They land here. What an earlier, broken download left here is gone on with."""
    patience: Patience | None = None
    progress: Progress | None = None

    def fetch(self, entry: ModelEntry, name: str, remote: RemoteFile) -> None:
        """Download one file and remember that its bytes are right. Raises ``TransferFailed``, ``OSError``."""
        target = self.folder / name
        title = f"{name} of {entry.name} ({entry.task.value}) to {self.folder}"
        download(remote, target, title=title, patience=self.patience, progress=self.progress)
        DigestCache(self.folder / VERIFIED).remember(target, remote.digest)
        log.info("%s of %s is here and its digest is right.", name, entry.name)
