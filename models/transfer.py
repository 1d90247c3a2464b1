"""HTTP requests within limits of time, tried again where that can help.

Files of the Hugging Face hub are fetched by this too, and not by ``huggingface_hub.hf_hub_download``: version 2.4
writes to a file of a random name and deletes it on any error, so that a restart begins at the first byte; it checks a
file's size but not its digest; and it takes bytes from other hosts (Xet) than the one that ``HF_ENDPOINT`` names.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # the built-in one only from Python 3.11 on
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx

from settings.addresses import shown_url

log = logging.getLogger(__name__)

T = TypeVar("T")

_GZIP = 16 + zlib.MAX_WBITS
"""What tells zlib that gzip comes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on waiting and on tries. All in seconds but the counts."""

    connect: float = 10.0
    """For one address of a host."""
    answer: float = 20.0
    """From a request to the headers of its answer: name look-up, every address, proxy and redirects included."""
    read: float = 60.0
    """For the next bytes of a body."""
    least_rate: float = 5_000.0
    """Bytes a second of a file, on average over ``rate_over``; a connection that brings fewer is given up."""
    rate_over: float = 60.0
    body: float = 60.0
    """For the whole body of an answer that is no file, such as a list of files."""
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


class WrongFile(TransferFailed):
    """A hub sent another file than the one that was asked for, by its size or digest."""


class Interrupted(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(
        self, message: str, *, answered: bool, retry_after: float | None = None, too_slow: bool = False
    ) -> None:
        super().__init__(message)
        self.answered = answered
        self.retry_after = retry_after
        self.too_slow = too_slow
        """Some bytes came, and too few to count as progress."""


class NoAnswer(Exception):
    """A call did not return in time."""


@contextmanager
def http_client(limits: Limits) -> Iterator[httpx.Client]:
    """Open a client with these time limits. Proxies come from the environment (HTTPS_PROXY, NO_PROXY), as usual."""
    timeout = httpx.Timeout(limits.read, connect=limits.connect)
    # "identity": sizes, ranges and digests are those of the file, not of a compressed form of it.
    headers = {"User-Agent": "immich-bento", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=timeout, headers=headers, follow_redirects=True) as client:
        yield client


@contextmanager
def answer_to(
    client: httpx.Client, url: str, limits: Limits, headers: dict[str, str] | None = None
) -> Iterator[httpx.Response]:
    """Yield the answer to one GET of ``url``, its body unread: any 2xx, or 416.

    Raises ``Interrupted`` (no answer, 408, 429, 5xx; also where the connection breaks while the body is read inside the
    ``with``) and ``TransferFailed`` (any other status).
    """
    answered = False
    try:
        # httpx logs addresses as they are, so a password travels beside the address.
        bare, credentials = without_credentials(url)
        request = client.build_request("GET", bare, headers=headers)
        response = within(
            limits.answer,
            lambda: client.send(request, stream=True, auth=credentials or httpx.USE_CLIENT_DEFAULT),
            discard=httpx.Response.close,
        )
        answered = True
        with closing(response):
            judge(response.status_code, response.headers.get("Retry-After", ""), str(response.request.url))
            yield response
    except (httpx.TimeoutException, NoAnswer) as error:
        what = "sent nothing for" if answered else "did not answer within"
        seconds = limits.read if answered else limits.answer
        raise Interrupted(f"{host_of(url)} {what} {seconds:g} s", answered=answered) from error
    except httpx.TransportError as error:
        what = "the connection broke" if answered else "no connection"
        raise Interrupted(f"{host_of(url)}: {what} ({error})", answered=answered) from error
    except httpx.InvalidURL:
        raise TransferFailed(f"{shown_url(url)} cannot be fetched: it is no valid address") from None
    except UnicodeError:  # of IDNA, which httpx and Python's sockets do not wrap
        raise TransferFailed(
            f"{shown_url(url)} cannot be fetched: the host of it, or of where it leads, has a name that no host has"
        ) from None
    except httpx.HTTPError as error:
        raise TransferFailed(f"{shown_url(url)} cannot be fetched: {error}") from error


def read_body(response: httpx.Response, most: int, limits: Limits) -> bytes:
    """Return the body of ``response``, unpacked: at most ``most`` bytes. Raises ``TransferFailed``."""
    host, end = host_of(str(response.request.url)), time.monotonic() + limits.body
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):  # which a server may send although it was not asked for
        raise TransferFailed(f"{host} answered in the encoding {encoding[:100]!r}, which was not asked for")
    unpack = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    body = b""
    for chunk in response.iter_raw():
        try:
            body += unpack.decompress(chunk, most + 1 - len(body)) if unpack is not None else chunk
        except zlib.error as error:
            raise TransferFailed(f"{host} answered with damaged gzip") from error
        if len(body) > most:
            raise TransferFailed(f"{host} answered with more than {most:,} bytes, which no list of files has")
        if time.monotonic() > end:
            raise TransferFailed(f"{host} did not end its answer within {limits.body:g} s")
    return body


def judge(status: int, retry_after: str, url: str) -> None:
    """Raise ``Interrupted`` or ``TransferFailed`` unless a GET of ``url`` was answered with a ``status`` of 2xx or
    416.
    """
    if 200 <= status < 300 or status == 416:
        return
    reason = f"{host_of(url)} answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
    if status in (408, 429) or status >= 500:
        # The form of Retry-After with a date is rare and left to the ordinary back-off.
        raise Interrupted(reason, answered=True, retry_after=float(retry_after) if retry_after.isdecimal() else None)
    raise TransferFailed(f"{reason} to {httpx.URL(url).path}", status=status)


def retrying(attempt: Callable[[], T], limits: Limits, *, progress: Callable[[], int] = lambda: 0) -> T:
    """Call ``attempt`` until it does not raise ``Interrupted``, with back-off, and return what it returns.

    ``progress``: bytes at hand; an attempt that adds to them sets the count of attempts back, unless it was too slow.
    Raises ``TransferFailed``.
    """
    began, fruitless = time.monotonic(), 0
    for _ in range(limits.total_attempts):
        before = progress()
        try:
            return attempt()
        except Interrupted as interruption:
            reason = interruption
        fruitless = 1 if progress() > before and not reason.too_slow else fruitless + 1
        wait = limits.backoff * 2 ** (fruitless - 1)
        if reason.retry_after is not None:
            wait = reason.retry_after
            if wait > limits.longest_wait:
                raise TransferFailed(f"{reason}; it asks to wait {wait:g} s") from reason
        unreachable = not reason.answered and time.monotonic() - began > limits.unreachable
        if unreachable or fruitless >= limits.attempts:
            break
        log.debug("%s; trying again in %g s", reason, wait)
        time.sleep(wait)
    raise TransferFailed(str(reason)) from reason


def host_of(url: str) -> str:
    """Return the host and port that ``url`` names."""
    return httpx.URL(url).netloc.decode("ascii")


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return ``url`` without a user name and password in it, and those two. Raises ``httpx.InvalidURL``."""
    parsed = httpx.URL(url)
    if not parsed.userinfo:
        return url, None
    return str(parsed.copy_with(username=None, password=None)), (parsed.username, parsed.password)


def within(seconds: float, call: Callable[[], T], *, discard: Callable[[T], None] = lambda result: None) -> T:
    """Return what ``call`` returns, or raise what it raises, or ``NoAnswer`` after ``seconds``.

    A client limits each address of a host on its own, and not the name look-up: where a firewall swallows packets, the
    eight addresses of a large hub would take over a minute. So the call runs in a thread that is abandoned when time is
    up; ``discard`` gets what it returns after that.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(result)
        else:
            discard(result)

    threading.Thread(target=run, name="model-download", daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except FutureTimeout as error:
        if answer.cancel():
            raise NoAnswer from error
        return answer.result()
