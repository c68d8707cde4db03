"""A TLS proxy before a server, as access proxies are: a request without its header gets a web page.

Its certificate is signed by an authority of its own, which only a client that was given it trusts.
"""

import asyncio
import json
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HEADER = "CF-Access-Client-Secret"
_CHUNK = 1 << 16
_PAGE = b"<!doctype html><title>Access denied</title>"
_NOT_PASSED_ON = (HEADER.lower(), "host")


class AccessProxy:
    """Passes requests on to `upstream_url` (http, no path) as long as the `with` block lasts.

    One request a connection, so that each is checked; a WebSocket is one. `secret` and `location`
    may be set at any time: what the header has to hold, and where the others are sent, if at all.
    `certificates`: its authority's, in PEM. `passed`, `refused`: how many requests were.
    """

    def __init__(self, upstream_url: str, folder: Path, *, valid_days: int = 30) -> None:
        """`folder` gets its certificate, which expired long ago where `valid_days` is below 0."""
        upstream = urlsplit(upstream_url)
        self._host, self._port = upstream.hostname or "", upstream.port or 0
        self.secret, self.location = token_hex(16), ""
        self.passed = self.refused = 0
        self.url = ""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificates, chain = _certify(valid_days)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "proxy.pem"
        file.write_text(chain)
        self._tls.load_cert_chain(file)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # clients that do not trust it hang up
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def headers(self) -> str:
        """What it asks for, as the setting of Prefect's client and ours have it."""
        return json.dumps({"CF-Access-Client-Id": "spot", HEADER: self.secret})

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.rstrip("\r\n").split("\r\n")
            headers = [(name.lower(), value.strip()) for name, _, value in _split(fields)]
            if (HEADER.lower(), self.secret) in headers:
                self.passed += 1
                await self._pass(line, headers, reader, writer)
            else:
                self.refused += 1
                status = f"302 Found\r\nLocation: {self.location}" if self.location else "403 No"
                length = f"Content-Length: {len(_PAGE)}\r\nContent-Type: text/html"
                answer = f"HTTP/1.1 {status}\r\n{length}\r\nConnection: close\r\n\r\n"
                writer.write(answer.encode() + _PAGE)
                await writer.drain()
        writer.close()

    async def _pass(
        self,
        line: str,
        headers: list[tuple[str, str]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if not any(name == "upgrade" for name, _ in headers):
            headers = [*((n, v) for n, v in headers if n != "connection"), ("connection", "close")]
        kept = [f"{name}: {value}" for name, value in headers if name not in _NOT_PASSED_ON]
        # The host is the upstream's: it refuses requests that were meant for another.
        head = "\r\n".join([line, f"host: {self._host}:{self._port}", *kept, "", ""])
        their_reader, their_writer = await asyncio.open_connection(self._host, self._port)
        try:
            their_writer.write(head.encode("latin-1"))
            sending = asyncio.create_task(_pipe(reader, their_writer))
            if ("connection", "close") in headers:
                status = await their_reader.readuntil(b"\r\n")
                writer.write(status + b"connection: close\r\n")  # not every server repeats it
            await _pipe(their_reader, writer)
            sending.cancel()
        finally:
            their_writer.close()


def _split(fields: list[str]) -> list[tuple[str, str, str]]:
    return [field.partition(":") for field in fields]


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until there is no more; then hang up."""
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


def _certify(valid_days: int) -> tuple[str, str]:
    """Make an authority and a certificate for 127.0.0.1; return its PEM, and the proxy's."""
    now = datetime.now(UTC)
    ends = now + timedelta(days=valid_days)

    def named(name: str, key: ec.EllipticCurvePublicKey, issuer: str) -> x509.CertificateBuilder:
        def dn(common_name: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

        builder = x509.CertificateBuilder().subject_name(dn(name)).issuer_name(dn(issuer))
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        return builder.not_valid_before(ends - timedelta(days=60)).not_valid_after(ends)

    ours, its = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    key_id = x509.SubjectKeyIdentifier.from_public_key(ours.public_key())
    usage = {"digital_signature": False, "key_cert_sign": True, "crl_sign": True}
    no = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage |= dict.fromkeys((*no, "encipher_only", "decipher_only"), False)
    authority = (
        named("authority", ours.public_key(), "authority")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(key_id, critical=False)
        .sign(ours, hashes.SHA256())
    )
    of_authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        named("proxy", its.public_key(), "authority")
        .add_extension(address, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(of_authority, critical=False)
        .sign(ours, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = its.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return authority.public_bytes(pem).decode(), key + certificate.public_bytes(pem).decode()
