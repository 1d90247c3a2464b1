"""A DNS server on loopback that knows what it is told, and fails as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Literal, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tools.harness.server import free_port


class FakeDns:
    """Answers by UDP and TCP for the names in ``addresses``. A context manager: it has a thread and a loop of its own.

    ``fault``: ``silent`` (answers nothing), ``error`` (SERVFAIL), ``cut`` (by UDP only that the answer is too long).
    """

    def __init__(self, ttl: int = 1) -> None:
        """``ttl``: seconds for which its answers hold."""
        self.ttl = ttl
        self.addresses: dict[str, list[str]] = {}
        """By names, without a dot at their ends."""
        self.fault: Literal["", "silent", "error", "cut"] = ""
        self.asked: Counter[str] = Counter()
        """Questions by ``name type transport``: ``ocr A udp``."""
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeDns:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _begin(self) -> None:
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", self.port)
        self._udp, _ = await self._loop.create_datagram_endpoint(lambda: _Udp(self), ("127.0.0.1", self.port))

    async def _end(self) -> None:
        self._tcp.close()
        self._udp.close()
        await asyncio.sleep(0)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        reply = self.reply(await reader.readexactly(length), "tcp")
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)
            await writer.drain()
        writer.close()

    def reply(self, wire: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{name} {kind} {transport}"] += 1
        if self.fault == "silent":
            return None
        response = dns.message.make_response(query)
        known = self.addresses.get(name)
        if self.fault == "error":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif self.fault == "cut" and transport == "udp":
            response.flags |= dns.flags.TC
        elif known is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            of_this_kind = [address for address in known if (":" in address) == (kind == "AAAA")]
            if of_this_kind:
                response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *of_this_kind))
        return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # it is none by its classes

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.reply(data, "udp")
        if reply is not None:
            self._transport.sendto(reply, addr)
