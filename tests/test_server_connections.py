from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from pydantic import ValidationError

from server import logs
from server.edge.settings import ConnectionSettings
from server.settings import Settings

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    bounds = ConnectionSettings(header_bytes=2000, header_timeout_s=0.3, read_timeout_s=0.3, connections=3)
    engine = FakeEngine(size=1024)
    with serving({"fake": engine}, Settings(connection=bounds)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read until the server closes; return the last answer's status and JSON."""
    text = b""
    while part := connection.recv(65536):
        text += part
    head, _, body = text.rpartition(b"\r\n\r\n")
    return int(head.rpartition(b"HTTP/1.1 ")[2][:3]), json.loads(body)


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (HEAD + b"X: " + b"y" * 3000 + b"\r\n\r\n", 431, "head-too-large"),
        (HEAD + b"X: " + b"y" * 3000, 431, "head-too-large"),
        (HEAD + b"X: y\r\n" * 400 + b"\r\n", 431, "head-too-large"),
        (b"GET /" + b"y" * 3000, 431, "head-too-large"),
        (HEAD, 408, "head-timeout"),
        (b"G", 408, "head-timeout"),
        (HEAD + b"Connection: close\r\n\r\n", 200, ""),
        (HEAD + b"\r\n" + HEAD, 408, "head-timeout"),
        (b"nonsense\r\n\r\n", 400, "malformed-request"),
        (b"\x16\x03\x01\x02\x00", 400, "malformed-request"),
        (
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
            400,
            "malformed-request",
        ),
    ],
)
def test_heads_are_bounded_in_bytes_and_time(url: str, sent: bytes, status: int, kind: str) -> None:
    with connect(url) as connection:
        connection.sendall(sent)
        got, body = answer_of(connection)
    assert got == status
    if status == 200:
        assert body == {"status": "alive", "reasons": []}
    else:
        assert (body["type"], body["status"]) == (f"urn:ddo-serve:{kind}", status)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_that_asks_nothing_is_closed(url: str, sent: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""


def test_a_head_that_comes_drop_by_drop_is_given_up(url: str) -> None:
    with connect(url) as connection, pytest.raises(OSError):
        for _ in range(200):
            connection.sendall(b"X")
            connection.settimeout(0.05)
            try:
                if not connection.recv(1000):
                    raise ConnectionResetError
            except TimeoutError:
                continue


def test_whoever_does_not_read_an_answer_is_let_go(url: str) -> None:
    log = io.StringIO()
    logs.configure("info", log)
    body = b'{"class_id": 1, "n": 4, "steps": 1}'
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        address = urlsplit(url)
        connection.connect((address.hostname, address.port))
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        start = connection.recv(1000)
        assert start.startswith(b"HTTP/1.1 200 ")
        length = int(start.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        end = time.monotonic() + 20
        while "does not read its answer" not in log.getvalue():
            assert time.monotonic() < end
            time.sleep(0.01)
        taken = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                taken += len(part)
        assert taken < length


def test_connections_are_bounded(url: str) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(url)) for _ in range(3)]
        one_more = stack.enter_context(connect(url))
        status, problem = answer_of(one_more)
        assert (status, problem["type"]) == (503, "urn:ddo-serve:too-many-connections")
        assert len(held) == 3
    assert httpx.get(f"{url}/livez").status_code == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certfile, keyfile = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(keyfile), "-out", str(certfile)]
    subprocess.run(command, check=True, capture_output=True)
    return certfile, keyfile


def test_tls(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = certificate
    settings = Settings(connection=ConnectionSettings(certfile=certfile, keyfile=keyfile))
    with serving({"fake": FakeEngine()}, settings) as url:
        with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=certfile)) as client:
            wait_until_ready(client)
            answer = client.post("/generate", json={"class_id": 1})
            assert (url[:8], answer.status_code) == ("https://", 200)
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/livez")
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/livez")


def test_a_certificate_that_cannot_be_used_is_refused_at_once(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = certificate
    for wrong in (
        {"certfile": certfile},
        {"certfile": keyfile, "keyfile": keyfile},
        {"keyfile": keyfile},
        {"certfile": certfile, "keyfile": keyfile.with_name("nowhere")},
    ):
        with pytest.raises(ValidationError, match="keyfile"):
            ConnectionSettings(**wrong)
