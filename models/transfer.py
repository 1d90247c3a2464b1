"""HTTP with bounded patience: one answer at a time, and trying again where trying again can help.

Used in place of ``huggingface_hub``'s own transfer, which checks a file's size but not its digest, moves bytes by
another protocol (xet) where it can, and waits for each of a host's addresses in turn where a network swallows packets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # the built-in one only from Python 3.11 on
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait and how often to try. All in seconds but the counts."""

    connect: float = 10.0
    """For one address of a host."""
    answer: float = 20.0
    """From a request to the headers of its answer: name look-up, every address, proxy and redirects included."""
    read: float = 60.0
    """For the next bytes of a body."""
    attempts: int = 4
    """In a row without a byte of progress."""
    total_attempts: int = 100
    backoff: float = 1.0
    """Before the second attempt; doubled for each further one."""
    unreachable: float = 15.0
    """A host that has not answered at all in this time is not tried again."""
    longest_wait: float = 10.0
    """A server that asks (Retry-After) for a longer wait is not waited for."""


class TransferFailed(Exception):
    """Given up. The message says why, for a person, and names the host."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, where that is the reason."""


class Interrupted(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, message: str, *, answered: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.answered = answered
        self.retry_after = retry_after


@contextmanager
def http_client(patience: Patience) -> Iterator[httpx.Client]:
    """A client with these time limits. Proxies come from the environment (HTTPS_PROXY, NO_PROXY), as usual."""
    timeout = httpx.Timeout(patience.read, connect=patience.connect)
    # "identity": sizes, ranges and digests are those of the file, not of a compressed form of it.
    headers = {"User-Agent": "immich-bento", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=timeout, headers=headers, follow_redirects=True) as client:
        yield client


@contextmanager
def answer_to(client: httpx.Client, url: str, patience: Patience, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
    """The answer to one GET of ``url``, its body unread: any 2xx, or 416.

    Raises ``Interrupted`` (no answer, 408, 429, 5xx; also where the connection breaks while the body is read inside the
    ``with``) and ``TransferFailed`` (any other status).
    """
    answered = False
    try:
        request = client.build_request("GET", url, headers=headers)
        response = _send_within(client, request, patience.answer)
        answered = True
        with closing(response):
            _judge(response, patience)
            yield response
    except httpx.TimeoutException as error:
        what = "sent nothing for" if answered else "did not answer within"
        seconds = patience.read if answered else patience.answer
        raise Interrupted(f"{host_of(url)} {what} {seconds:g} s", answered=answered) from error
    except httpx.TransportError as error:
        what = "the connection broke" if answered else "no connection"
        raise Interrupted(f"{host_of(url)}: {what} ({error})", answered=answered) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferFailed(f"{url} cannot be fetched: {error}") from error


def retrying(attempt: Callable[[], T], patience: Patience, *, progress: Callable[[], int] = lambda: 0) -> T:
    """Call ``attempt`` until it does not raise ``Interrupted``, with back-off.

    ``progress``: bytes at hand; an attempt that adds to them sets the count of attempts back. Raises ``TransferFailed``.
    """
    began, fruitless = time.monotonic(), 0
    for _ in range(patience.total_attempts):
        before = progress()
        try:
            return attempt()
        except Interrupted as interruption:
            reason = interruption
        fruitless = 1 if progress() > before else fruitless + 1
        wait = patience.backoff * 2 ** (fruitless - 1)
        if reason.retry_after is not None:
            wait = reason.retry_after
            if wait > patience.longest_wait:
                raise TransferFailed(f"{reason}; it asks to wait {wait:g} s") from reason
        unreachable = not reason.answered and time.monotonic() - began > patience.unreachable
        if unreachable or fruitless >= patience.attempts:
            break
        log.debug("%s; trying again in %g s", reason, wait)
        time.sleep(wait)
    raise TransferFailed(str(reason)) from reason


def host_of(url: str) -> str:
    """The host and port that ``url`` names."""
    return httpx.URL(url).netloc.decode("ascii")


def _judge(response: httpx.Response, patience: Patience) -> None:
    status = response.status_code
    if response.is_success or status == 416:
        return
    reason = f"{host_of(str(response.request.url))} answered {status} {response.reason_phrase}".rstrip()
    if status in (408, 429) or status >= 500:
        raise Interrupted(reason, answered=True, retry_after=_retry_after(response))
    raise TransferFailed(f"{reason} to {response.request.url.path}", status=status)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the form with a date is rare and left to the ordinary back-off."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _send_within(client: httpx.Client, request: httpx.Request, seconds: float) -> httpx.Response:
    """``client.send`` with a limit on the whole of it.

    httpx limits each address of a host on its own, and not the name look-up: where a firewall swallows packets, the eight
    addresses of a large hub would take over a minute. So the request runs in a thread that is abandoned when time is up.
    """
    answer: Future[httpx.Response] = Future()

    def send() -> None:
        try:
            response = client.send(request, stream=True)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(response)
        else:
            response.close()

    threading.Thread(target=send, name="model-download", daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except FutureTimeout as error:
        if answer.cancel():
            raise httpx.ReadTimeout("no answer", request=request) from error
        return answer.result()
