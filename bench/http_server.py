"""A small HTTP server for the stand-ins: JSON, kept-alive connections, each answer late by as much.

Made to cost little: what a stand-in takes of the machine is missing to whoever is measured. So it
understands what the clients here send (a length for every body), and no more.
"""

import asyncio
import base64
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455 has a server add to a client's key."""

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_HEAD_ENDS: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `headers` by names in lower case, `query` undecoded, `body` as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `body` is sent as JSON, None as nothing at all."""

    status: int
    body: object = None


Handler = Callable[[Request], "Answer | asyncio.Future[Answer]"]
OnMessage = Callable[[str], str | None]
"""Takes a WebSocket's text message, and returns what to send back."""


@dataclass(frozen=True)
class Service:
    """What a server answers, and how many seconds after a request has come in."""

    handle: Handler
    on_message: OnMessage = lambda _: None
    delay_seconds: float = 0.0


async def listen(service: Service, port: int) -> asyncio.Server:
    """Listen on 127.0.0.1; port 0 takes a free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: _Connection(service, loop), "127.0.0.1", port, backlog=1024
    )


def port_of(server: asyncio.Server) -> int:
    """Return the port that it listens on."""
    return int(server.sockets[0].getsockname()[1])


class ServerThread:
    """A service in a thread of this process, behind which a test can see."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> "ServerThread":
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(listen(self._service, 0), self._loop)
        self.url = f"http://127.0.0.1:{port_of(listening.result())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Connection(asyncio.Protocol):
    """One client: a request at a time, or a WebSocket once it asked for that."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._buffer = b""
        self._is_socket = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_frame() if self._is_socket else self._take_request():
            pass

    def _take_request(self) -> bool:
        end = self._buffer.find(_HEAD_ENDS)
        if end < 0:
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        begin = end + len(_HEAD_ENDS)
        length = int(headers.get("content-length", 0))
        if len(self._buffer) < begin + length:
            return False
        body, self._buffer = self._buffer[begin : begin + length], self._buffer[begin + length :]
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        if headers.get("upgrade", "").lower() == "websocket":
            self._open_socket(headers)
        else:
            self._answer(Request(method, path, query, headers, body))
        return True

    def _answer(self, request: Request) -> None:
        answer = self._service.handle(request)
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(lambda later: self._send(_encoded(later.result())))
        else:
            self._send(_encoded(answer))

    def _send(self, data: bytes) -> None:
        """A transport that is closed by then drops it."""
        self._loop.call_later(self._service.delay_seconds, self._transport.write, data)

    def _open_socket(self, headers: Mapping[str, str]) -> None:
        digest = hashlib.sha1(headers["sec-websocket-key"].encode() + MAGIC, usedforsecurity=False)
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest.digest()).decode()}",
        ]
        protocols = headers.get("sec-websocket-protocol", "")
        if protocols:
            lines.append(f"Sec-WebSocket-Protocol: {protocols.partition(',')[0].strip()}")
        self._is_socket = True
        self._send("\r\n".join(lines).encode() + _HEAD_ENDS)

    def _take_frame(self) -> bool:
        """Read a frame as clients send it: masked, and whole."""
        if len(self._buffer) < 2:
            return False
        kind, length, begin = self._buffer[0] & 0x0F, self._buffer[1] & 0x7F, 2
        for marker, form in ((126, ">H"), (127, ">Q")):
            if length == marker:
                begin = 2 + struct.calcsize(form)
                if len(self._buffer) < begin:
                    return False
                length = struct.unpack(form, self._buffer[2:begin])[0]
                break
        end = begin + 4 + length
        if len(self._buffer) < end:
            return False
        mask, masked = self._buffer[begin : begin + 4], self._buffer[begin + 4 : end]
        self._buffer = self._buffer[end:]
        keys = (mask * (length // 4 + 1))[:length]
        plain = int.from_bytes(masked, "big") ^ int.from_bytes(keys, "big")
        self._take_message(kind, plain.to_bytes(length, "big"))
        return True

    def _take_message(self, kind: int, content: bytes) -> None:
        if kind == _TEXT:
            back = self._service.on_message(content.decode())
            if back is not None:
                self._send(_frame(_TEXT, back.encode()))
        elif kind == _PING:
            self._send(_frame(_PONG, content))
        elif kind == _CLOSE:
            self._send(_frame(_CLOSE, content))
            self._loop.call_later(self._service.delay_seconds, self._transport.close)


def _encoded(answer: Answer) -> bytes:
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _frame(kind: int, content: bytes) -> bytes:
    """A server's frame is not masked; ours are short."""
    assert len(content) < 126
    return bytes((0x80 | kind, len(content))) + content
