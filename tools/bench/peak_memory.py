"""The most memory that a server takes while something is done."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import psutil

from tools.bench.processes import ProcessTree, kernel_sizes

_PERIOD = 0.1
"""Seconds between two looks."""


class PeakMemory:
    """Looks at all processes of a server ten times a second, from entering the context until leaving it."""

    def __init__(self, pid: int, apart: str) -> None:
        """Watch the process ``pid`` and its descendants; ``apart``: a word in the command line of one to tell too."""
        self.pss = 0.0
        """MB of proportional set size, of all processes together."""
        self.anonymous = 0.0
        """The same without pages of files, which the system takes back where it needs to."""
        self.apart = 0.0
        """MB of resident set size of the process that is told apart, by the kernel's own count of its peak."""
        self._tree, self._word = ProcessTree(pid), apart
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_PERIOD):
            pss = anonymous = 0.0
            for process in self._tree.processes():
                with contextlib.suppress(psutil.Error, ProcessLookupError, FileNotFoundError):  # it has ended
                    sizes = kernel_sizes(process.pid, "smaps_rollup")
                    pss += sizes.get("Pss", 0) / 1e6
                    anonymous += sizes.get("Pss_Anon", 0) / 1e6
                    if self._word in process.cmdline():
                        self.apart = max(self.apart, kernel_sizes(process.pid, "status").get("VmHWM", 0) / 1e6)
            self.pss, self.anonymous = max(self.pss, pss), max(self.anonymous, anonymous)
