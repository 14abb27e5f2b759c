"""The page's files and what it asks the server for, without a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from test_server_access import USER, keys_file

from engines.solvers import SOLVERS
from server.access.settings import AccessSettings
from server.settings import Settings
from server.web.page import DIRECTORY

FILES = {"/": "text/html", "/web/style.css": "text/css", "/web/app.js": "text/javascript"}
MAX_BYTES = 60_000


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving({"fake": FakeEngine(cost_s=0.01)}, Settings(max_images=5, queue_rows=40)) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(("path", "media_type"), FILES.items())
def test_the_page_is_served_and_may_run_nothing_else(
    client: httpx.Client, path: str, media_type: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(media_type)
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).status_code == 200


def test_other_files_are_not_served(client: httpx.Client) -> None:
    for path in ("/web/", "/web/nope.js", "/web/../page.py", "/web/%2e%2e/page.py"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_page_is_small_and_asks_nobody_else(client: httpx.Client) -> None:
    texts = [client.get(path).text for path in FILES]
    assert sum(len(text.encode()) for text in texts) < MAX_BYTES
    for text in texts:
        outside = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", text)) - {"http://www.w3.org"}
        assert not outside  # The name space of SVG is a name, not an address.
        assert "@import" not in text


def test_every_element_that_the_script_looks_for_is_there_once() -> None:
    page, script = (DIRECTORY / "index.html").read_text(), (DIRECTORY / "app.js").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'\$\("([^"]+)"\)', script))
    assert len(wanted) > 20
    assert wanted <= set(ids)
    named = set(re.findall(r'(?:for|aria-controls|aria-labelledby|aria-describedby)="([^"]+)"', page))
    assert named <= set(ids)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to read the script with")
def test_the_script_is_a_module_that_parses() -> None:
    command = ["node", "--check", "--input-type=module"]
    subprocess.run(command, input=(DIRECTORY / "app.js").read_bytes(), check=True, timeout=60)


def test_the_page_needs_no_key_and_the_load_does(tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path))
    with serving({"fake": FakeEngine()}, Settings(access=access)) as url:
        assert [httpx.get(url + path).status_code for path in FILES] == [200, 200, 200]
        assert httpx.get(f"{url}/load").status_code == 401
        assert httpx.get(f"{url}/load", headers={"X-API-Key": USER}).status_code == 200


def test_the_load_counts_what_was_done(client: httpx.Client) -> None:
    before = client.get("/load").json()
    assert before["queue_limit"] == 40
    assert client.post("/generate", json={"class_id": 1, "n": 2, "steps": 5}).status_code == 200
    assert client.post("/generate", json={"class_id": 99}).status_code == 422
    after = client.get("/load").json()
    assert after["requests"] == before["requests"] + 1
    assert after["engine_seconds"] - before["engine_seconds"] >= 5 * 0.01
    assert after["request_seconds"] - before["request_seconds"] >= 5 * 0.01
    assert (after["waiting_images"], after["active_images"]) == (0, 0)


def test_a_model_tells_its_solvers_and_the_servers_limits(client: httpx.Client) -> None:
    detail = client.get("/models/fake").json()
    assert detail["solvers"] == list(SOLVERS)
    assert detail["limits"] == {"n": 5, "steps": 1000, "deadline_ms": 120_000}
