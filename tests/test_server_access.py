from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from typer.testing import CliRunner

from server import logs
from server.access.door import open_door
from server.access.keys import AccessError, digest_of, new_key
from server.access.settings import AccessSettings
from server.cli import cli
from server.settings import Settings, load_settings

USER, ADMIN = new_key(), new_key()


def keys_file(directory: Path, **limits: int) -> Path:
    """Write a file of a user's key with these limits and an admin's."""
    lines = [f"{name} = {value}" for name, value in limits.items()]
    file = directory / "keys.toml"
    file.write_text(
        "\n".join(["[keys.alice]", f'sha256 = "{digest_of(USER)}"', *lines])
        + f'\n[keys.ops]\nsha256 = "{digest_of(ADMIN)}"\nadmin = true\n'
    )
    return file


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    access = AccessSettings(keys=keys_file(tmp_path_factory.mktemp("keys")))
    with (
        serving({"fake": FakeEngine()}, Settings(access=access)) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {USER}"},
        {"Authorization": f"bearer {USER}"},
        {"X-API-Key": USER},
        {"X-API-Key": ADMIN},
        {"X-API-Key": ADMIN, "Authorization": f"Bearer {ADMIN}"},
    ],
)
def test_a_key_lets_in(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/generate", json={"class_id": 1}, headers=headers)
    assert answer.status_code == 200
    assert client.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="ddo-serve"'),
        ({"Authorization": f"Basic {USER}"}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        ({"Authorization": USER}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        ({"Authorization": "Bearer"}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        (
            {"Authorization": f"Bearer {new_key()}", "X-API-Key": USER},
            'Bearer realm="ddo-serve", error="invalid_token"',
        ),
        (
            {"Authorization": f"Bearer {ADMIN}", "X-API-Key": USER},
            'Bearer realm="ddo-serve", error="invalid_token"',
        ),
        ({"X-API-Key": USER[:-1]}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        ({"X-API-Key": digest_of(USER)}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        ({"Authorization": f"Bearer {new_key()}"}, 'Bearer realm="ddo-serve", error="invalid_token"'),
        ({"X-API-Key": b"\xff"}, 'Bearer realm="ddo-serve", error="invalid_token"'),
    ],
)
@pytest.mark.parametrize("path", ["/models", "/models/fake", "/models/nope/classes", "/metrics"])
def test_without_a_right_key_nothing_is_told(
    client: httpx.Client, headers: dict[str, str], challenge: str, path: str
) -> None:
    answer = client.get(path, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:ddo-serve:unauthenticated")
    assert answer.headers["WWW-Authenticate"] == challenge
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_no_image_is_made_without_a_key(client: httpx.Client) -> None:
    assert client.post("/generate", json={"class_id": 1}).status_code == 401
    told = client.get("/metrics", headers={"X-API-Key": USER}).text
    assert 'ddo_rejections_total{reason="unauthenticated"}' in told


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_metrics_can_be_shown_to_everybody(tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path), open_metrics=True)
    with serving({"fake": FakeEngine()}, Settings(access=access)) as url:
        assert httpx.get(f"{url}/metrics").status_code == 200
        assert httpx.get(f"{url}/models").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "example.org"])
def test_listening_elsewhere_needs_keys(tmp_path: Path, host: str) -> None:
    with pytest.raises(AccessError, match="key new"):
        open_door(AccessSettings(), host)
    assert open_door(AccessSettings(keys=keys_file(tmp_path)), host).guarded
    assert not open_door(AccessSettings(open=True), host).guarded


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    door = open_door(AccessSettings(), host)
    assert not door.guarded
    assert door.caller(None).admin


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "keys"),
        ("[keys]", "at least 1"),
        ("nonsense", "TOML"),
        ('[keys.a]\nsha256 = "abc"', "sha256"),
        (f'[keys."a b"]\nsha256 = "{"0" * 64}"', "a b"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nconcurency = 1', "concurency"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nconcurrency = 0', "concurrency"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(AccessError, match=says):
        open_door(AccessSettings(keys=file), "127.0.0.1")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"nowhere\.toml"):
        open_door(AccessSettings(keys=tmp_path / "nowhere.toml"), "127.0.0.1")


def test_a_made_key_opens_the_door(tmp_path: Path) -> None:
    made = CliRunner().invoke(
        cli, ["key", "new", "--id", "bob", "--admin", "--concurrency", "2", "--images-per-minute", "60"]
    )
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key not in made.stderr
    file = tmp_path / "keys.toml"
    file.write_text(made.stderr)
    caller = open_door(AccessSettings(keys=file), "0.0.0.0").caller(key)
    assert (caller.id, caller.admin) == ("bob", True)
    assert (caller.limits.concurrency, caller.limits.images_per_minute) == (2, 60)


def test_a_key_needs_a_plain_name() -> None:
    made = CliRunner().invoke(cli, ["key", "new", "--id", "a.b"])
    assert made.exit_code == 2
    assert "letters, digits" in made.output


def test_the_environment_gives_lists_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDO_ACCESS__CORS_ORIGINS", "https://a.example, https://b.example")
    assert load_settings().access.cors_origins == ("https://a.example", "https://b.example")


def test_no_key_is_logged(client: httpx.Client) -> None:
    log = io.StringIO()
    logs.configure("debug", log)
    wrong = new_key()
    for key in (USER, ADMIN, wrong):
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            client.get("/models", headers=headers)
            client.post("/generate", json={"class_id": 9}, headers=headers)
    text = log.getvalue()
    assert text.count('"event": "request"') == 12
    assert not any(part in text for key in (USER, ADMIN, wrong) for part in (key, key[4:20], digest_of(key)))
