"""How much of an answer is read: so many bytes, within so many seconds, as ordinary JSON.

Everyone who may write to Prefect decides what an answer holds: without bounds, one answer could use
up the memory or the time of an invocation. Price: an answer in a
content encoding is refused. None is asked for, and one that was not could be a thousand times as
long as what is sent.
"""

import io
import json
import math
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any, Final, NoReturn

import urllib3
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

MOST_BYTES: Final = 8 * 2**20
"""Of an answer. A run has parameters of 512 KB at most (PREFECT_SERVER_API_MAX_PARAMETER_SIZE), a
page of a hundred some 300 KB as a rule, and 8 MiB hold a history of ten thousand states. A longer
page is asked for in parts."""
MOST_VALUES: Final = 400_000
"""In an answer, and as many as the states of that history have. Python needs up to 48 bytes for one
of JSON (`[[[`), and some 230 for a value (`{"":`); a sweep holds four answers about a run at once,
in 512 MB: bytes alone are no bound."""
_LONGEST_WAIT_SECONDS: Final = 21_600.0
_CHUNK: Final = 2**18
_HALF_OF_A_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")


class TimedAnswer(HTTPResponse):
    """An answer that has to be whole within the socket's timeout: all reads together, not each."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Until(sock, self.fp.detach()))


class _Until(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        self._ends = time.monotonic() + (sock.gettimeout() or math.inf)
        self._most = 2 * MOST_BYTES  # headers and chunks' lengths too, which may be any

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer is not whole in time")
        if left < math.inf:
            self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        self._most -= count or 0
        if self._most < 0:
            raise OutOfBoundsError("more than it may be long in all")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class OutOfBoundsError(ValueError):
    """An answer that another try would not make fit; it says of what kind."""


def read_body(response: urllib3.BaseHTTPResponse) -> bytes | OutOfBoundsError:
    """Return the body of an answer that was not read yet, or why it is not read; urllib3's errors.

    MOST_BYTES at most, and in no content encoding.
    """
    encoding, body = response.headers.get("Content-Encoding", "").strip().lower(), bytearray()
    if encoding not in ("", "identity"):
        response.close()
        return OutOfBoundsError("a content encoding that was not asked for")
    try:
        while chunk := response.read(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > MOST_BYTES:
                raise OutOfBoundsError(f"more than {MOST_BYTES} bytes")
    except OutOfBoundsError as error:
        response.close()
        return error
    return bytes(body)


def read_json(body: bytes | OutOfBoundsError) -> object:
    """Return what JSON says, None for no JSON at all; numbers are finite, texts fit for UTF-8.

    Raises OutOfBoundsError: numbers out of range, too many values, nested too deeply; ValueError
    for what is no JSON.
    """
    if isinstance(body, OutOfBoundsError):
        raise body
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:  # those in texts count as well
        raise OutOfBoundsError(f"more than {MOST_VALUES} values")
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite) if text else None
        if _HALF_OF_A_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError("something that is not JSON") from None
    except (ValueError, RecursionError) as error:
        raise OutOfBoundsError(f"JSON out of bounds: {error}") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits[:20])


def retry_after_seconds(response: urllib3.BaseHTTPResponse) -> float:
    """Retry-After, at most six hours; 0 without one, or if it is past or unreadable."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return min(float(asked), _LONGEST_WAIT_SECONDS)  # `int` refuses thousands of digits
    with suppress(InvalidHeader, ValueError, OverflowError):
        return min(Retry().parse_retry_after(asked), _LONGEST_WAIT_SECONDS)
    return 0.0


def message_of(body: object) -> str:
    """Prefect's message, under any of three keys; never the request that it may send back."""
    if not isinstance(body, Mapping):
        return ""
    message = body.get("detail") or body.get("exception_message") or body.get("message") or ""
    parts = [message] if isinstance(message, str) else []
    for errors in (body.get("exception_detail"), message):
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, Mapping) and isinstance(text := error.get("msg"), str):
                loc = error.get("loc")
                place = (
                    [str(at) for at in loc if isinstance(at, str | int)]
                    if isinstance(loc, list)
                    else []
                )
                parts.append(f"{'.'.join(place)}: {text}")
    # Behind it is a job variable that the pool's template does not take: maybe all environment.
    return "; ".join(parts).partition(" Failure reason:")[0]
