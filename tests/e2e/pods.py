"""Pods on addresses of loopback, and the name that has those of them that are ready: what a headless Service of
Kubernetes is to a gateway.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil

from tests.fake_dns import FakeDns
from tests.fake_upstream import FakeUpstream
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder

PRE_STOP = 4.0
"""Seconds that a pod which has left its name goes on answering: gateways look again after the second for which answers
hold.
"""
_UNNOTICED = 1.0
"""Seconds for which the name still has a pod that died."""


class Pod(Protocol):
    """A server that answers at an address of its own."""

    host: str

    def start(self) -> None:
        """Return once it answers."""

    def finish(self) -> None:
        """End it as SIGTERM does."""

    def die(self) -> None:
        """End it as SIGKILL does."""


class LightPod:
    """Takes a fifth of a second for a request, and computes nothing."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self._server = FakeUpstream(lambda received: "slow", host=host, port=port)
        self._server.forgets = True

    def start(self) -> None:
        self._server.__enter__()

    def finish(self) -> None:
        self._server.finish()
        self._server.__exit__()

    def die(self) -> None:
        self._server.__exit__()


class RealPod(Server):
    """This service itself, with a tiny CLIP."""

    def __init__(self, host: str, port: int, folder: Path) -> None:
        tiny_clip_folder(folder / "models/clip/ViT-B-16")
        super().__init__(folder, {"CLIP_MODEL": "ViT-B-16", "SHUTDOWN_TIMEOUT": "30"}, port=port, host=host)

    def start(self) -> None:
        self.spawn()
        self.wait_until_ready()

    def finish(self) -> None:
        assert self.process is not None
        self.terminate()
        self.process.wait(60)

    def die(self) -> None:
        for process in self.processes():
            process.kill()
        assert self.process is not None
        self.process.wait(60)


class Workload:
    """The pods of one Deployment. A context manager: it ends all that are left."""

    def __init__(self, name: str, dns: FakeDns, make: Callable[[], Pod]) -> None:
        """``make``: returns another pod, not yet started."""
        self.name = name
        self._dns = dns
        self._make = make
        self._lock = threading.Lock()
        self._ending = concurrent.futures.ThreadPoolExecutor(32)
        self._ends: list[concurrent.futures.Future[None]] = []
        self.pods: list[Pod] = []
        self.most = self.started = self.drained = self.died = 0

    def __enter__(self) -> Workload:
        return self

    def __exit__(self, *error: object) -> None:
        for end in self._ends:
            end.result()
        self._ending.shutdown()
        for pod in self.pods:
            pod.die()

    def scale(self, count: int) -> None:
        """Start or drain pods until there are ``count``."""
        while len(self.pods) < count:
            self.add(self._make())
        while len(self.pods) > count:
            self.drain(self.pods[0])

    def add(self, pod: Pod) -> None:
        """Start ``pod``; the name has it once it is ready."""
        pod.start()
        with self._lock:
            self.pods.append(pod)
            self.started += 1
            self.most = max(self.most, len(self.pods))
            self._publish()

    def roll(self) -> None:
        """Put another in the place of every pod, one by one."""
        for pod in list(self.pods):
            self.add(self._make())
            self.drain(pod)

    def drain(self, pod: Pod) -> None:
        """Take ``pod`` out of the name, and end it a while later, in the background."""
        with self._lock:
            self.pods.remove(pod)
            self._publish()
            self.drained += 1

        def end() -> None:
            time.sleep(PRE_STOP)
            pod.finish()

        self._ends.append(self._ending.submit(end))

    def kill(self, pod: Pod) -> None:
        """Kill ``pod``, whose address the name has for a while, and put another in its place."""
        pod.die()
        self.died += 1
        time.sleep(_UNNOTICED)
        with self._lock:
            self.pods.remove(pod)
            self._publish()
        self.add(self._make())

    def _publish(self) -> None:
        self._dns.addresses[self.name] = [pod.host for pod in self.pods]


def addresses() -> Iterator[str]:
    """Yield addresses of loopback that nothing else here listens on, for ever."""
    while True:
        yield from (f"127.0.0.{last}" for last in range(2, 255))


def memory(server: Server) -> float:
    """Return how much memory the gateway's own process has, in MiB."""
    (process,) = server.workers("immich_bento")
    return float(psutil.Process(process.pid).memory_info().rss) / 2**20
