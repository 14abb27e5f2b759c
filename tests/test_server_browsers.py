from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from test_server_access import USER, keys_file

from server.access.settings import AccessSettings
from server.settings import Settings

FRIEND, STRANGER = "https://friend.example", "https://stranger.example"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    access = AccessSettings(hosts=("proxy.example",), cors_origins=(FRIEND,))
    with (
        serving({"fake": FakeEngine()}, Settings(access=access)) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize("path", ["/livez", "/models", "/nope", "/openapi.json", "/docs", "/metrics"])
def test_every_answer_tells_browsers_to_be_careful(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Request-ID"]


def test_the_documentation_runs_its_own_scripts_only(client: httpx.Client) -> None:
    page = client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = re.search(r"script-src ([^;]*)", policy)
    assert sources and sources[1].split() == ["https://cdn.jsdelivr.net", f"'sha256-{digest}'"]
    for target in re.findall(r'(?:src|href)="(https://[^/"]+)', page.text):
        assert target in policy


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1234", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("proxy.example", 200),
        ("PROXY.example:443", 200),
        ("stranger.example", 403),
        ("localhost.stranger.example", 403),
        ("127.0.0.1.stranger.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_a_name_turned_to_this_machine_leads_nowhere(client: httpx.Client, host: str, status: int) -> None:
    answer = client.get("/models", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["type"] == "urn:ddo-serve:forbidden"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"] != ""


@pytest.mark.parametrize(
    ("origin", "status"),
    [(STRANGER, 403), ("null", 403), ("http://localhost:9", 403), (FRIEND, 200), (None, 200), ("own", 200)],
)
def test_pages_of_strange_sites_cannot_post(client: httpx.Client, origin: str | None, status: int) -> None:
    own = str(client.base_url).rstrip("/")
    headers = {} if origin is None else {"Origin": own if origin == "own" else origin}
    answer = client.post("/generate", content=b'{"class_id": 1}', headers=headers)
    assert answer.status_code == status


def test_cors_is_for_the_origins_of_the_settings(client: httpx.Client) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    friend = client.options("/generate", headers={"Origin": FRIEND} | ask)
    assert (friend.status_code, friend.headers["Access-Control-Allow-Origin"]) == (200, FRIEND)
    stranger = client.options("/generate", headers={"Origin": STRANGER} | ask)
    assert "Access-Control-Allow-Origin" not in stranger.headers
    assert "Access-Control-Allow-Origin" not in client.get("/models", headers={"Origin": STRANGER}).headers


def test_cors_is_off_and_keys_serve_every_host(tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path))
    with serving({"fake": FakeEngine()}, Settings(access=access)) as url:
        headers = {"X-API-Key": USER, "Origin": FRIEND, "Host": "public.example"}
        answer = httpx.get(f"{url}/models", headers=headers)
        assert answer.status_code == 200
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_an_open_server_elsewhere_goes_by_any_name_unless_told() -> None:
    for access, status in [
        (AccessSettings(open=True), 200),
        (AccessSettings(open=True, hosts=("a.example",)), 403),
    ]:
        with serving({"fake": FakeEngine()}, Settings(host="0.0.0.0", access=access)) as url:
            assert httpx.get(f"{url}/models", headers={"Host": "b.example"}).status_code == status
            denied = httpx.post(f"{url}/generate", json={}, headers={"Origin": STRANGER, "Host": "b.example"})
            assert denied.status_code == 403
